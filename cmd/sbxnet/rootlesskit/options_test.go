package rootlesskit

import (
	"bytes"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sbxnet/userns"
)

// typed runs a command line that starts nothing, and returns the options that
// it would start with, nil if it would not, and what it printed.
func typed(args ...string) (o *options, stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	p := &program{stdout: &out, stderr: &errs, run: func(got *options, _ []*os.File, _ io.Writer) (int, error) {
		o = got
		return 7, nil
	}}
	status = p.main(append([]string{"rootlesskit"}, args...))
	return o, out.String(), errs.String(), status
}

func TestCommandLinesOfCallers(t *testing.T) {
	for _, c := range []struct {
		caller string
		args   []string
		check  func(o *options) bool
	}{
		{"dockerd-rootless.sh", []string{
			"--net=slirp4netns", "--mtu=65520", "--slirp4netns-sandbox=auto", "--slirp4netns-seccomp=auto",
			"--disable-host-loopback", "--port-driver=builtin", "--copy-up=/etc", "--copy-up=/run", "--propagation=rslave",
			"/usr/bin/dockerd-rootless.sh", "--storage-driver", "vfs"},
			func(o *options) bool {
				return o.network() == userns.NetworkSandbox && o.MTU == 65520 && o.DisableHostLoopback && !o.IPv6 &&
					reflect.DeepEqual(o.CopyUp, []string{"/etc", "/run"}) && o.Propagation == userns.PropagationSlave &&
					reflect.DeepEqual(o.Command, []string{"/usr/bin/dockerd-rootless.sh", "--storage-driver", "vfs"})
			}},
		{"containerd-rootless.sh", []string{
			"--state-dir=/run/user/1/containerd-rootless", "--net=slirp4netns", "--mtu=65520", "--slirp4netns-sandbox=auto",
			"--slirp4netns-seccomp=auto", "--disable-host-loopback", "--port-driver=builtin", "--copy-up=/etc", "--copy-up=/run",
			"--copy-up=/var/lib", "--propagation=rslave", "--detach-netns", "containerd-rootless.sh"},
			func(o *options) bool {
				return o.DetachNetNS && o.StateDir == "/run/user/1/containerd-rootless" && len(o.CopyUp) == 3
			}},
		{"k3s", []string{"--net", "gvisor-tap-vsock", "--pidns", "--cgroupns", "--utsns", "--ipcns", "--reaper=auto", "--ipv6",
			"--cidr=10.41.0.0/16", "--ifname=eth9", "k3s", "server"},
			func(o *options) bool {
				return o.PID && o.Cgroup && o.UTS && o.IPC && o.IPv6 && o.CIDR.String() == "10.41.0.0/16" && o.Interface == "eth9" &&
					o.network() == userns.NetworkSandbox
			}},
		{"somebody with ports", []string{"--net=pasta", "--port-driver=builtin", "-p", "127.0.0.1:8080:80/tcp", "-p=[::1]:5353:10.0.2.100:53/udp", "sh"},
			func(o *options) bool {
				return len(o.Publish) == 2 && o.Publish[1].ChildIP == "10.0.2.100" && o.Publish[1].Proto == "udp"
			}},
		{"usernetes", []string{"--net=pasta", "--port-driver=implicit", "--detach-netns", "--pidns", "--cgroupns", "--evacuate-cgroup2=rootlesskit_evacuation",
			"--subid-source=dynamic", "sh"},
			func(o *options) bool {
				return o.EvacuateCgroup2 == "rootlesskit_evacuation" && o.SubIDSource == subIDsDynamic && o.PortDriver == driverImplicit && o.DetachNetNS
			}},
		{"nobody in particular", []string{"true"},
			func(o *options) bool {
				return o.network() == userns.NetworkHost && o.Propagation == userns.PropagationPrivate && len(o.Warnings) == 0
			}},
		{"somebody who says nothing of the loopback", []string{"--net=vpnkit", "true"},
			func(o *options) bool { return len(o.Warnings) == 1 && o.MTU == 65520 && o.Interface == "tap0" }},
		{"somebody with a propagation of his own", []string{"--propagation=none", "true"},
			func(o *options) bool { return len(o.Warnings) == 1 && o.Propagation == userns.PropagationSlave }},
		{"somebody with the largest MTU", []string{"--net=slirp4netns", "--mtu=65521", "true"},
			func(o *options) bool { return o.MTU == 65520 }},
		{"somebody whose command has flags", []string{"--net=none", "env", "-i", "--net=x", "--", "y"},
			func(o *options) bool { return o.Net == "none" && len(o.Command) == 5 }},
	} {
		o, stdout, stderr, status := typed(c.args...)
		if o == nil || status != 7 || stdout != "" || stderr != "" {
			t.Errorf("%s: status %d, %q, %q", c.caller, status, stdout, stderr)
			continue
		}
		if !c.check(o) {
			t.Errorf("%s: %+v", c.caller, o)
		}
	}
}

func TestBadCommandLines(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{}, "no command specified"},
		{[]string{"--net=slirp4netns"}, "no command specified"},
		{[]string{"--no-such", "true"}, "flag provided but not defined: -no-such; see rootlesskit --help"},
		{[]string{"--net"}, "flag needs an argument: -net"},
		{[]string{"--mtu=many", "true"}, `invalid value "many" for flag -mtu`},
		{[]string{"--mtu=65522", "true"}, "mtu must be <= 65521"},
		{[]string{"--mtu=-1", "true"}, "got -1"},
		{[]string{"--mtu=67", "true"}, "got 67"},
		{[]string{"--net=slirp4netns", "--cidr=10.0.2.5/24", "true"}, "invalid cidr 10.0.2.5/24"},
		{[]string{"--net=slirp4netns", "--cidr=10.0.2.0/26", "true"}, "invalid cidr"},
		{[]string{"--net=slirp4netns", "--cidr=fd00::/64", "true"}, "invalid cidr"},
		{[]string{"--net=slirp4netns", "--cidr=a\nb", "true"}, `invalid cidr "a\nb"`},
		{[]string{"--cidr=10.0.3.0/24", "true"}, "custom cidr is not supported for --net=host"},
		{[]string{"--net=none", "--ifname=x", "true"}, "ifname cannot be specified for --net=none"},
		{[]string{"--net=slirp4netns", "--ifname=a/b", "true"}, `ifname must not contain "/"`},
		{[]string{"--net=slirp4netns", "--ifname=abcdefghijklmnop", "true"}, "ifname must not"},
		{[]string{"--detach-netns", "true"}, "no network namespace with --net=host"},
		{[]string{"--port-driver=builtin", "true"}, "no port can lead into --net=host"},
		{[]string{"--net=slirp4netns", "--port-driver=implicit", "true"}, `"implicit" requires --net=pasta`},
		{[]string{"--net=pasta", "--port-driver=pasta", "true"}, `did you mean "pesto"?`},
		{[]string{"--net=slirp4netns", "-p", "127.0.0.1:80:80/tcp", "true"}, `port driver "none" does not support publishing ports`},
		{[]string{"--net=pasta", "--port-driver=builtin", "-p", "80", "true"}, "missing proto"},
		{[]string{"--net=pasta", "--port-driver=builtin", "-p", "0.0.0.0:70000:80/tcp", "true"}, "invalid ParentPort: 70000"},
		{[]string{"--net=pasta", "--port-driver=builtin", "-p", "0.0.0.0:0:80/tcp", "true"}, "invalid ParentPort: 0"},
		{[]string{"--copy-up-mode=overlay", "true"}, "unknown copy-up mode: overlay; use tmpfs+symlink"},
		{[]string{"--reaper=true", "true"}, "reaper requires --pidns"},
		{[]string{"--reaper=maybe", "true"}, "unknown reaper mode: maybe"},
		{[]string{"--subid-source=ldap", "true"}, "unknown subid source ldap"},
		{[]string{"--evacuate-cgroup2=x", "--pidns", "true"}, "evacuate-cgroup2 requires --cgroupns"},
		{[]string{"--evacuate-cgroup2=x", "--cgroupns", "true"}, "evacuate-cgroup2 requires --pidns"},
		{[]string{"--evacuate-cgroup2=a/b", "--cgroupns", "--pidns", "true"}, `unexpected evacuation group name "a/b": must not contain "/"`},
		{[]string{"--evacuate-cgroup2=..", "--cgroupns", "--pidns", "true"}, `unexpected evacuation group name ".."`},
		{[]string{"--print-semver=build"}, "expected --print-semver=(major|minor|patch), got build"},
	} {
		o, _, stderr, status := typed(c.args...)
		if o != nil || status != 1 {
			t.Errorf("%q: status %d", c.args, status)
		}
		if !strings.HasPrefix(stderr, "[rootlesskit:parent] error: ") || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: %q, want one line with %q", c.args, stderr, c.want)
		}
	}
}

func TestVersionIsTheOneThatWeBehaveAs(t *testing.T) {
	if _, out, _, status := typed("--version"); status != 0 || !regexp.MustCompile(`^rootlesskit version 3\.\d+\.\d+\n$`).MatchString(out) {
		t.Errorf("status %d: %q", status, out)
	}
	if _, out, _, status := typed("--print-semver", "major"); status != 0 || out != "3\n" {
		t.Errorf("status %d: %q", status, out)
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	_, out, _, status := typed("--help")
	if status != 0 {
		t.Errorf("status %d", status)
	}
	for _, f := range flags() {
		if name := "--" + f.Names()[0]; !regexp.MustCompile(regexp.QuoteMeta(name) + `\b`).MatchString(out) {
			t.Errorf("no %s", name)
		}
	}
	known := map[string]bool{"help": true, "version": true}
	for _, f := range flags() {
		known[f.Names()[0]] = true
	}
	for _, m := range regexp.MustCompile(`--([a-z0-9-]+)`).FindAllStringSubmatch(out, -1) {
		if !known[m[1]] {
			t.Errorf("--%s is not a flag", m[1])
		}
	}
}

func TestErrorOfACommandThatDoesNotStartHasItsStatus(t *testing.T) {
	var out, errs bytes.Buffer
	p := &program{stdout: &out, stderr: &errs, run: func(*options, []*os.File, io.Writer) (int, error) {
		return 0, &userns.ExecError{Status: 127, Text: "nope: command not found in PATH"}
	}}
	if status := p.main([]string{"rootlesskit", "nope"}); status != 127 || errs.String() != "[rootlesskit:parent] error: nope: command not found in PATH\n" {
		t.Errorf("status %d: %q", status, errs.String())
	}
}

func TestEnvironmentIsRootlessKits(t *testing.T) {
	t.Setenv("ROOTLESSKIT_STATE_DIR", "/outer")
	t.Setenv("ROOTLESSKIT_OTHER", "x")
	env := strings.Join(environment("/state"), "\n")
	for _, want := range []string{"ROOTLESSKIT_STATE_DIR=/state", "ROOTLESSKIT_PARENT_EUID=", "ROOTLESSKIT_PARENT_EGID="} {
		if !strings.Contains(env, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(env, "/outer") || strings.Contains(env, "ROOTLESSKIT_OTHER") {
		t.Error("it is told of the sandbox that we are in")
	}
}

// A flag that nobody reads would be one that lies.
func FuzzCommandLine(f *testing.F) {
	f.Add("--net=slirp4netns\x00--mtu=1500\x00true")
	f.Add("-p\x00[::1]:80:80/udp\x00--port-driver=builtin\x00--net=pasta\x00sh")
	f.Add("--cidr=10.0.0.0/8\x00--ifname=\x00--copy-up=\x00x")
	f.Fuzz(func(t *testing.T, line string) {
		o, _, stderr, status := typed(strings.Split(line, "\x00")...)
		if o == nil && status == 7 || o != nil && (len(o.Command) == 0 || o.MTU < smallestMTU || o.MTU > usedMTU) {
			t.Errorf("%q: %+v, status %d", line, o, status)
		}
		if strings.Count(stderr, "\n") > 1 {
			t.Errorf("%q: %q", line, stderr)
		}
	})
}
