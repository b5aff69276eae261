package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"sbxnet/tapdev/linktest"
)

// The gateway has the MAC address that it is given, and is the gateway all the
// same.
func TestCompatPastaGatewaysMACAddress(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter", "ip", "nc")
	routeToWorld(t)
	const mac = "02:00:00:00:00:77"
	var port4, port6 string
	remote(t, func() { port4, port6 = greeter(t, remoteAddr4, "four"), greeter(t, remoteAddr6, "six") })
	n := newNetNSFile(t)
	bg := startPasta(t, "--config-net", "--no-map-gw", "-M", mac, "-t", "none", "-u", "none", "--netns", n.path)
	for to, want := range map[string]string{remoteAddr4 + " " + port4: "four\n", remoteAddr6 + " " + port6: "six\n"} {
		if got := n.inside("nc -w 3 " + to + " </dev/null"); got != want {
			t.Errorf("%s: %q", to, got)
		}
	}
	neighbours := n.inside("ip neigh show dev host0")
	for _, gw := range []string{remoteAddr4, remoteAddr6} {
		if !strings.Contains(neighbours, gw+" lladdr "+mac) {
			t.Errorf("%s is not at %s:\n%s", gw, mac, neighbours)
		}
	}
	n.remove()
	bg.ends()
}

// Who comes by the host's loopback finds the server on loopback, and nobody else
// does; without the option it is the other one.
func TestCompatPastaHostLoopbackToNamespaceLoopback(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter")
	routeToWorld(t)
	for _, flag := range []string{"--host-lo-to-ns-lo", "--quiet"} {
		n := newNetNSFile(t)
		bg := startPasta(t, flag, "--config-net", "-t", "8430:80", "-u", "none", "--netns", n.path)
		n.serve("greet", "127.0.0.1:80", "inner")
		n.serve("greet", hostAddr4+":80", "outer")
		n.serve("greet", "["+hostAddr6+"]:80", "outer")
		local := "outer"
		if flag == "--host-lo-to-ns-lo" {
			local = "inner"
		}
		for to, want := range map[string]string{"127.0.0.1": local, "::1": local, hostAddr4: "outer", hostAddr6: "outer"} {
			if got := says("tcp", net.JoinHostPort(to, "8430")); got != want {
				t.Errorf("%s: %s is answered by %q, want %q", flag, to, got, want)
			}
		}
		var got string
		remote(t, func() { got = says("tcp", net.JoinHostPort(hostAddr4, "8430")) })
		if got != "outer" {
			t.Errorf("%s: from elsewhere: %q", flag, got)
		}
		n.remove()
		bg.ends()
	}
}

// No packet comes to ::1 by a link: a server there is found by who does without it,
// and --no-splice has nobody do so.
func TestCompatPastaServerOnIPv6Loopback(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter")
	routeToWorld(t)
	for _, flag := range []string{"--no-splice", "--quiet", "--host-lo-to-ns-lo"} {
		if flag != "--no-splice" && !linktest.Chosen().Splice() {
			continue // nobody is to
		}
		n := newNetNSFile(t)
		bg := startPasta(t, flag, "--config-net", "-t", "8432:80", "-u", "none", "--netns", n.path)
		n.serve("greet", "[::1]:80", "inner")
		for _, host := range []string{"127.0.0.1", "::1"} {
			got := says("tcp", net.JoinHostPort(host, "8432"))
			if found := got == "inner"; found != (flag != "--no-splice") {
				t.Errorf("%s: %s is answered by %q", flag, host, got)
			}
		}
		n.remove()
		bg.ends()
	}
}

// greet says a line to whoever connects.
func greet(addr, line string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintln(c, line)
		c.Close()
	}
}

// A port on an address that the host gets later is open when it has it.
func TestCompatPastaFreebind(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter")
	routeToWorld(t)
	const later4, later6 = "192.0.2.88", "2001:db8::88"
	n := newNetNSFile(t)
	n.serve("who", "tcp", ":80")
	n.waitListening("tcp6", 80)
	specs := []string{"-t", later4 + "/8431:80", "-t", "[" + later6 + "]/8431:80", "-u", "none", "--config-net", "--netns", n.path}
	if out, status := callPasta(t, "pasta", specs...); status != 1 || !strings.Contains(out, later4) {
		t.Errorf("without the option: %d %q", status, out)
	}
	bg := startPasta(t, append([]string{"--freebind"}, specs...)...)
	if err := address("host0", later4+"/24", later6+"/64"); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{later4: remoteAddr4, later6: remoteAddr6} {
		remote(t, func() {
			eventuallySays(t, "tcp", net.JoinHostPort(to, "8431"), strings.TrimSuffix(net.JoinHostPort(from, ""), ":"))
		})
	}
	n.remove()
	bg.ends()
}

// To enter no user namespace is enough for who owns the network namespace without.
func TestCompatPastaNetNSOnly(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter", "ip")
	routeToWorld(t)
	n := newNetNSFile(t)
	bg := startPasta(t, "--netns-only", "--config-net", "-t", "none", "-u", "none", "--netns", n.path)
	if got := n.inside("ip -o -4 addr show dev host0"); !strings.Contains(got, hostAddr4+"/24") {
		t.Errorf("%s", got)
	}
	n.remove()
	bg.ends()
	out, status := callPasta(t, "pasta", "--netns-only", "true")
	if want := "pasta: --netns-only requires --netns or PID"; status != 1 || !strings.HasPrefix(out, want) {
		t.Errorf("with a command: %d %q, want %q", status, out, want)
	}
}
