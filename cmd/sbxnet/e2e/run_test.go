package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sbxnet/tapdev"
	"sbxnet/tapdev/linktest"
)

func TestExitStatusIsTheCommands(t *testing.T) {
	for _, c := range []struct {
		script string
		want   int
	}{
		{"exit 0", 0},
		{"exit 7", 7},
		{"exit 255", 255},
		{"kill -TERM $$", 128 + 15},
		{"kill -KILL $$", 128 + 9},
	} {
		if r := runSbxnet(t, "run", "--", "sh", "-c", c.script); r.status != c.want {
			t.Errorf("%q: status %d, want %d; stderr: %s", c.script, r.status, c.want, r.stderr)
		}
	}
}

func TestCommandNotFoundAndNotExecutable(t *testing.T) {
	if r := runSbxnet(t, "run", "--", "no-such-command-here"); r.status != 127 || !oneLineNaming(r.stderr, "no-such-command-here") {
		t.Errorf("not found: status %d, stderr %q", r.status, r.stderr)
	}
	plain := scratch(t) + "/plain"
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := runSbxnet(t, "run", "--", plain); r.status != 126 || !oneLineNaming(r.stderr, plain) {
		t.Errorf("not executable: status %d, stderr %q", r.status, r.stderr)
	}
}

// oneLineNaming reports whether what sbxnet itself printed ends with a line of
// its own that names the thing. Notices may stand before it.
func oneLineNaming(stderr, thing string) bool {
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	last := lines[len(lines)-1]
	return strings.HasPrefix(last, "sbxnet: ") && strings.Contains(last, thing)
}

func TestNoCommandRunsTheShell(t *testing.T) {
	cmd := command(t, "run")
	cmd.Env = append(cmd.Env, "SHELL=/bin/true")
	if r := startCommand(t, cmd).wait(20 * time.Second); r.status != 0 {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
}

func TestStandardStreamsAndDirectoryAreTheCallers(t *testing.T) {
	cmd := command(t, "run", "--", "sh", "-c", "pwd; cat; echo oops >&2")
	cmd.Dir = scratch(t)
	cmd.Stdin = strings.NewReader("from outside\n")
	r := startCommand(t, cmd).wait(20 * time.Second)
	if want := cmd.Dir + "\nfrom outside\n"; r.stdout != want {
		t.Errorf("stdout %q, want %q", r.stdout, want)
	}
	if !strings.Contains(r.stderr, "oops\n") {
		t.Errorf("stderr %q", r.stderr)
	}
}

func TestSandboxHasItsAddressesRoutesAndResolver(t *testing.T) {
	need(t, "ip")
	out := sh(t, []string{"--cidr", "10.77.0.0/24", "--cidr6", "fd77::/64"},
		`ip -o addr show; ip route; ip -6 route; cat /etc/resolv.conf; ls /sys/class/net; cat /sys/class/net/tap0/mtu`)
	for _, want := range []string{
		"10.77.0.100/24", "fd77::100/64", "default via 10.77.0.2", "default via fd77::2",
		"nameserver 10.77.0.3", "nameserver fd77::3", "\nlo\n", "\ntap0\n", "\n1500\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "eth0") {
		t.Errorf("the sandbox sees a host interface:\n%s", out)
	}
}

func TestIPv6CanBeSwitchedOff(t *testing.T) {
	need(t, "ip")
	out := sh(t, []string{"--ipv6=false"}, `ip -o -6 addr show dev tap0; cat /etc/resolv.conf`)
	if strings.Contains(out, "fd00") || strings.Contains(out, "fd77") {
		t.Errorf("IPv6 addresses with --ipv6=false:\n%s", out)
	}
}

func TestMTUAndHostname(t *testing.T) {
	for _, mtu := range []int{576, 1280, 9000, 65520} {
		flags := []string{"--mtu", fmt.Sprint(mtu), "--hostname", "box"}
		if mtu < 1280 {
			flags = append(flags, "--ipv6=false")
		}
		if got := sh(t, flags, `cat /sys/class/net/tap0/mtu; uname -n`); got != fmt.Sprintf("%d\nbox\n", mtu) {
			t.Errorf("mtu %d: %q", mtu, got)
		}
	}
}

func TestNetworkNoneHasLoopbackOnly(t *testing.T) {
	need(t, "ip", "ping")
	out := sh(t, []string{"--network", "none"}, `ping -c1 -W10 127.0.0.1 >/dev/null && echo lo-answers; ls /sys/class/net; ip route get 192.0.2.1 2>&1 || true`)
	if !strings.Contains(out, "lo-answers") || strings.Contains(out, "tap0") || !strings.Contains(out, "unreachable") {
		t.Errorf("%s", out)
	}
	if r := runSbxnet(t, "run", "--network", "none", "--", "true"); r.status != 0 || r.stderr != "" && os.Getuid() == 0 {
		t.Errorf("status %d, stderr %q", r.status, r.stderr)
	}
}

func TestNetworkHostIsTheHosts(t *testing.T) {
	inside := sh(t, []string{"--network", "host"}, `readlink /proc/self/ns/net; readlink /proc/self/ns/user`)
	net, _ := os.Readlink("/proc/self/ns/net")
	user, _ := os.Readlink("/proc/self/ns/user")
	got := strings.Fields(inside)
	if len(got) != 2 || got[0] != net || got[1] == user {
		t.Errorf("inside %q, outside %s %s", got, net, user)
	}
}

func TestPingWorksWithAndWithoutNetRaw(t *testing.T) {
	need(t, "ping")
	for _, raw := range []string{"--net-raw=true", "--net-raw=false"} {
		sh(t, []string{raw}, `ping -c1 -W10 10.0.2.2 >/dev/null`)
	}
	out := sh(t, []string{"--net-raw=false"}, `grep CapBnd /proc/self/status`)
	var caps uint64
	if _, err := fmt.Sscanf(strings.TrimSpace(out), "CapBnd: %x", &caps); err != nil || caps&(1<<13) != 0 {
		t.Errorf("CAP_NET_RAW is still there: %q (%v)", out, err)
	}
}

func TestPIDNamespace(t *testing.T) {
	need(t, "ps")
	out := sh(t, []string{"--pid-namespace"}, `ps -e -o pid= | wc -l; test -e /proc/1 && cat /proc/1/comm`)
	var n int
	if _, err := fmt.Sscan(out, &n); err != nil || n > 6 {
		t.Errorf("the sandbox sees more than its own processes: %q", out)
	}
}

func TestHostFilesAreUntouched(t *testing.T) {
	before := map[string]string{}
	for _, f := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		b, _ := os.ReadFile(f)
		before[f] = string(b)
	}
	sh(t, []string{"--hostname", "box"}, `echo "192.0.2.77 changed" >> /etc/hosts; echo "nameserver 192.0.2.77" > /etc/resolv.conf; grep -q changed /etc/hosts; grep -q 192.0.2.77 /etc/resolv.conf`)
	for f, want := range before {
		if b, _ := os.ReadFile(f); string(b) != want {
			t.Errorf("%s changed on the host", f)
		}
	}
}

// What SBXNET_TEST_LINK says is the link of a test that does not choose one.
func TestChosenLinkIsTheSandboxs(t *testing.T) {
	for text, want := range map[string]chosen{
		"link=packet num-network-channels=4":        {"packet", 4, true},
		"num-network-channels=2 link=tap":           {"tap", 2, true},
		"gso=false link=tap num-network-channels=1": {"tap", 1, false},
		"rx-checksum-offload=false link=packet":     {"packet", tapdev.DefaultQueues(), true},
	} {
		if want.Kind == "tap" {
			needTAP(t)
		}
		t.Setenv(linktest.Env, text)
		p := start(t, "run", "--name", "chosen", "--", "sleep", "100")
		inspectUp(t, "chosen")
		var got struct{ Link chosen }
		if err := json.Unmarshal([]byte(runSbxnet(t, "inspect", "chosen").stdout), &got); err != nil {
			t.Fatal(err)
		}
		if got.Link != want {
			t.Errorf("%s: %+v, want %+v", text, got.Link, want)
		}
		p.cmd.Process.Signal(syscall.SIGTERM)
		p.wait(20 * time.Second)
	}
}

// chosen is the part of `sbxnet inspect` that says what became of a choice.
type chosen struct {
	Kind      string
	Queues    int
	KernelTSO bool
}
