package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What -T and -U name leads to the host's loopback, and nothing else does.
func TestCompatPastaPortsThatLeadOut(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter", "nc")
	routeToWorld(t)
	named, other := greeter(t, "127.0.0.1", "named"), greeter(t, "127.0.0.1", "other")
	n := newNetNSFile(t)
	bg := startPasta(t, "--config-net", "--no-map-gw", "-t", "none", "-u", "none", "-T", named+",5432:"+named, "-U", "none", "--netns", n.path)
	for _, to := range []string{"127.0.0.1 " + named, "::1 5432", "127.0.0.1 5432"} {
		want := "named\n"
		if strings.HasPrefix(to, "::1") {
			want = "" // the server is on 127.0.0.1 only
		}
		if got := n.inside("nc -w 3 " + to + " </dev/null || true"); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
	if got := n.inside("nc -w 3 127.0.0.1 " + other + " </dev/null"); strings.Contains(got, "other") {
		t.Error("a port that nobody named leads out")
	}
	n.remove()
	bg.ends()

	// The same for a command.
	cmd := pastaCommand(t, "pasta", "-q", "--config-net", "-t", "none", "-u", "none", "-T", "5432:"+named, "--", "sh", "-c",
		"nc -w 3 127.0.0.1 5432 </dev/null; ip -o -4 addr show dev host0; exit 3")
	p := startCommand(t, cmd)
	if r := p.wait(20 * time.Second); r.status != 3 || !strings.HasPrefix(r.stdout, "named\n") || !strings.Contains(r.stdout, hostAddr4+"/24") {
		t.Errorf("%+v", r)
	}
}

// What listens on the host's loopback can be reached from inside while it does,
// and nothing goes round in a circle: neither what pasta publishes leads out
// again, nor is what leads out published.
func TestCompatPastaAutoLeadsOut(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter", "nc")
	routeToWorld(t)
	serve := func(addr, line string) net.Listener { return greetAt(t, addr, line) }
	early := serve("127.0.0.1:8320", "early")
	serve("[::1]:8321", "six")
	serve(hostAddr4+":8322", "not on loopback")
	serve("127.0.0.1:8323", "excluded")
	n := newNetNSFile(t)
	n.serve("who", "tcp4", "127.0.0.1:8324")
	n.waitListening("tcp", 8324)
	// Its port is somebody else's inside.
	serve("127.0.0.1:8325", "outside")
	n.serve("who", "tcp4", "127.0.0.1:8325")
	n.waitListening("tcp", 8325)
	bg := startPasta(t, "--config-net", "--no-map-gw", "-T", "auto,~8323", "--netns", n.path)
	inside := func(to string) string { return n.inside("nc -w 3 " + to + " </dev/null || true") }
	for to, want := range map[string]string{
		"127.0.0.1 8320": "early\n",
		"::1 8321":       "six\n",
		"127.0.0.1 8322": "",
		"127.0.0.1 8323": "",
		"127.0.0.1 8325": "127.0.0.1:",
	} {
		if got := inside(to); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
	// What is published stays the sandbox's own inside.
	eventuallySays(t, "tcp", "127.0.0.1:8324", remoteAddr4+":")
	if got := inside("127.0.0.1 8324"); !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("the sandbox's own server: %q", got)
	}
	serve("127.0.0.1:8326", "late")
	datagrams := startCommand(t, exec.Command(self, toolArg, "who", "udp4", "127.0.0.1:8327"))
	datagrams.waitOutput("listening", 10*time.Second)
	for _, c := range []struct{ script, want string }{
		{"nc -w 3 127.0.0.1 8326 </dev/null || true", "late\n"},
		{"echo who | nc -u -w 1 127.0.0.1 8327", "127.0.0.1:"},
	} {
		for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			got := n.inside(c.script)
			if strings.HasPrefix(got, c.want) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %q, want %q", c.script, got, c.want)
			}
		}
	}
	early.Close()
	for deadline := time.Now().Add(10 * time.Second); strings.Contains(n.inside("cat /proc/net/tcp"), fmt.Sprintf(":%04X 00000000:0000 0A", 8320)); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the port of a server of the host that has ended leads out still")
		}
	}
	if l, err := net.Listen("tcp4", "127.0.0.1:8320"); err != nil {
		t.Errorf("its port is not free: %v", err)
	} else {
		l.Close()
	}
	n.remove()
	bg.ends()
}
