package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCopiedUpDirectoriesCanBeWrittenTo(t *testing.T) {
	got := sh(t, []string{"--copy-up", "/etc", "--copy-up=/run"}, `
		stat -f -c %T /etc /run; rm /etc/hosts; echo 127.0.0.1 other > /etc/hosts; mkdir /run/docker
		head -1 /etc/resolv.conf; cat /etc/hosts`)
	if want := "tmpfs\ntmpfs\nnameserver 10.0.2.3\n127.0.0.1 other\n"; got != want {
		t.Errorf("inside:\n%s\nwant:\n%s", got, want)
	}
	if b, err := os.ReadFile("/etc/hosts"); err != nil || strings.Contains(string(b), "other") {
		t.Errorf("the host's file: %q, %v", b, err)
	}
}

func TestDetachedNetworkIsPublishedToAndNotTheCommands(t *testing.T) {
	need(t, "nsenter", "ip")
	p := start(t, "run", "--detach-netns", "-p", "80", "--", "sh", "-ec",
		`readlink /proc/self/ns/net; nsenter --net=$ROOTLESSKIT_STATE_DIR/netns ip -o -4 addr show dev tap0
		exec nsenter --net=$ROOTLESSKIT_STATE_DIR/netns `+hello)
	p.waitOutput("listening", 20*time.Second)
	network, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{network + "\n", "10.0.2.100/24"} {
		if !strings.Contains(p.stdout.String(), want) {
			t.Errorf("no %q in %s", want, p.stdout.String())
		}
	}
	if page := get(t, "http://127.0.0.1:"+p.publishedPort("80", "tcp")); !strings.Contains(page, "at 10.0.2.100:80") {
		t.Errorf("the page says %q", page)
	}
}

func TestSocketsOfAServiceManagerAreTheCommands(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	script := `test "$LISTEN_PID" = $$ && echo ours; echo $LISTEN_FDS; readlink /proc/$$/fd/3; test -e /proc/$$/fd/4 && echo more; true`
	for _, flags := range []string{"", "--pid-namespace", "--network none", "--detach-netns"} {
		cmd := command(t, "run")
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec " + runLine(strings.Fields(flags)...) + ` -- sh -c "$0"`, script}
		cmd.ExtraFiles = []*os.File{socket}
		r := startCommand(t, cmd).wait(20 * time.Second)
		if want := fmt.Sprintf("ours\n1\nsocket:[%d]\n", inodeOf(t, socket)); r.status != 0 || r.stdout != want {
			t.Errorf("%q: status %d:\n%s\nwant:\n%s\n%s", flags, r.status, r.stdout, want, r.stderr)
		}
	}
	r := runSbxnetWith(t, "LISTEN_FDS=3", "run", "true")
	if r.status != 125 || !strings.Contains(r.stderr, "LISTEN_FDS=3: descriptor 3 is not open") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}

// runSbxnetWith announces sockets that are not there.
func runSbxnetWith(t *testing.T, announced string, args ...string) result {
	t.Helper()
	cmd := command(t)
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", "LISTEN_PID=$$ " + announced + ` exec "$0" "$@"`, sbxnet}, args...)
	return startCommand(t, cmd).wait(20 * time.Second)
}

func TestEngineFlagsThatCannotBeAreRefused(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--copy-up", "/no/such"}, "copy up /no/such: no such file or directory"},
		{[]string{"--copy-up", "etc"}, `copy up "etc": not an absolute path`},
		{[]string{"--copy-up", "/"}, "copy up /: has to stay what it is"},
		{[]string{"--propagation", "x"}, "--propagation x: not a kind"},
		{[]string{"--detach-netns", "--network", "host"}, "no network namespace to detach"},
	} {
		r := runSbxnet(t, append(append([]string{"run"}, c.args...), "--", "true")...)
		if r.status != 125 || !oneLineNaming(r.stderr, c.want) {
			t.Errorf("%q: status %d: %q, want %q", c.args, r.status, r.stderr, c.want)
		}
	}
}
