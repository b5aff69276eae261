package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Where a specifier lets clients in, and where it leads them.
func TestCompatPastaPortSpecifiers(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter")
	routeToWorld(t)
	n := newNetNSFile(t)
	n.serve("who", "tcp", ":80")
	n.serve("who", "tcp", ":82")
	n.serve("who", "tcp4", "127.0.0.1:90")
	n.waitListening("tcp6", 80, 82)
	n.waitListening("tcp", 90)
	bg := startPasta(t, "--config-net", "-u", "none",
		"-t", "127.0.0.1/8401:80,8402:80", "-t", "[::1]/8403:80", "-t", "8404-8406:80-82,~8405", "-t", "%lo/8407:80",
		"-t", hostAddr4+"%host0/8408:80", "-t", "8409:127.0.0.1/90", "-t", "8410:["+hostAddr6+"]/80", "-t", "0.0.0.0/8411:80",
		"--netns", n.path)
	const refused = "refused"
	gw4, gw6 := remoteAddr4+":", "["+remoteAddr6+"]:" // whom the host's own clients appear as
	for _, c := range []struct{ from, to, want string }{
		{"host", "127.0.0.1:8401", gw4},
		{"host", "127.0.0.1:8402", gw4},
		{"host", hostAddr4 + ":8401", refused},
		{"remote", hostAddr4 + ":8401", refused},
		{"host", "[::1]:8403", gw6},
		{"host", "127.0.0.1:8403", refused},
		{"remote", hostAddr4 + ":8404", remoteAddr4 + ":"},
		{"remote", "[" + hostAddr6 + "]:8404", "[" + remoteAddr6 + "]:"},
		{"remote", hostAddr4 + ":8405", refused},
		{"remote", hostAddr4 + ":8406", remoteAddr4 + ":"},
		{"host", "127.0.0.1:8407", gw4},
		{"remote", hostAddr4 + ":8407", refused},
		{"remote", hostAddr4 + ":8408", remoteAddr4 + ":"},
		{"remote", hostAddr4 + ":8409", remoteAddr4 + ":"},
		{"host", "[::1]:8410", gw6},
		{"host", "[::1]:8411", refused},
		{"remote", hostAddr4 + ":8411", remoteAddr4 + ":"},
	} {
		var got string
		if c.from == "host" {
			got = says("tcp", c.to)
		} else {
			remote(t, func() { got = says("tcp", c.to) })
		}
		if c.want == refused && !strings.Contains(got, refused) || c.want != refused && !strings.HasPrefix(got, c.want) {
			t.Errorf("%s to %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
	n.remove()
	bg.ends()
}

// The sandbox's traffic leaves by the address and the interface that are named.
func TestCompatPastaOutbound(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter", "nc")
	routeToWorld(t)
	const second4, second6 = "192.0.2.77", "2001:db8::77"
	if err := address("host0", second4+"/24", second6+"/64"); err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{}
	seen := make(chan string, 8)
	remote(t, func() {
		for _, addr := range []string{remoteAddr4, remoteAddr6} {
			l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { l.Close() })
			_, ports[addr], _ = net.SplitHostPort(l.Addr().String())
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					c.Close()
					seen <- from
				}
			}()
		}
	})
	for _, c := range []struct {
		flags  []string
		v4, v6 string
	}{
		{nil, hostAddr4, ""}, // of two IPv6 addresses the kernel may take either
		{[]string{"-o", second4, "-o", second6}, second4, second6},
		{[]string{"--outbound-if4", "host0", "--outbound-if6", "host0"}, hostAddr4, ""},
	} {
		n := newNetNSFile(t)
		bg := startPasta(t, append(c.flags, "--config-net", "--no-map-gw", "-t", "none", "-u", "none", "--netns", n.path)...)
		for _, to := range []struct{ addr, want string }{{remoteAddr4, c.v4}, {remoteAddr6, c.v6}} {
			out := n.inside("nc -w 3 " + to.addr + " " + ports[to.addr] + " </dev/null")
			select {
			case from := <-seen:
				if to.want != "" && from != to.want {
					t.Errorf("%q: to %s from %s, want %s", c.flags, to.addr, from, to.want)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("%q: %s is not reached: %s", c.flags, to.addr, out)
			}
		}
		n.remove()
		bg.ends()
	}
}

// What is switched off does not pass, and the rest does.
func TestCompatPastaWithoutAProtocol(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter", "nc", "ping")
	routeToWorld(t)
	var tcp string
	remote(t, func() { tcp = greeter(t, remoteAddr4, "remote") })
	for _, c := range []struct {
		flag           string
		tcp, udp, echo bool
	}{
		{"--quiet", true, true, true},
		{"--no-tcp", false, true, true},
		{"--no-udp", true, false, true},
		{"--no-icmp", true, true, false},
	} {
		n := newNetNSFile(t)
		bg := startPasta(t, "--config-net", "--no-map-gw", c.flag, "--dns-forward", "169.254.1.1", "--netns", n.path)
		patience := func(passes bool) string { // of what passes nothing is lost
			if passes {
				return "10"
			}
			return "1"
		}
		if got := n.inside("nc -w "+patience(c.tcp)+" "+remoteAddr4+" "+tcp+" </dev/null") == "remote\n"; got != c.tcp {
			t.Errorf("%s: TCP passes: %v", c.flag, got)
		}
		if got := strings.Contains(n.inside("dig +time="+patience(c.udp)+" +tries=1 @169.254.1.1 host.sbxnet.internal"), "NOERROR"); got != c.udp {
			t.Errorf("%s: UDP passes: %v", c.flag, got)
		}
		if got := strings.Contains(n.inside("ping -c 1 -W "+patience(c.echo)+" "+remoteAddr4), " 0% packet loss"); got != c.echo {
			t.Errorf("%s: echo passes: %v", c.flag, got)
		}
		n.remove()
		bg.ends()
	}
}

// What crosses the link is in the file of --pcap, for this user only.
func TestCompatPastaCaptures(t *testing.T) {
	needTAP(t)
	need(t, "ping")
	file := filepath.Join(scratch(t), "cap")
	p := startCommand(t, pastaCommand(t, "pasta", "-q", "--config-net", "-t", "none", "-u", "none", "-I", "foo0", "-4", "-a", "10.0.2.100", "-n", "24", "-g", "10.0.2.2",
		"-p", file, "--", "sh", "-c", "ping -c 1 -W 1 10.0.2.2"))
	p.wait(20 * time.Second)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) < 200 || string(b[:4]) != "\x0a\x0d\x0d\x0a" {
		t.Errorf("%d bytes that begin with % x", len(b), b[:min(len(b), 4)])
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}
