package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// podmansPasta is the argument vector that Podman 5 starts pasta with
// (libnetwork/pasta), for ports as it writes them.
func podmansPasta(netns string, ports ...string) []string {
	args := append([]string{"--config-net"}, ports...)
	args = append(args, "--dns-forward", "169.254.1.1")
	tcp, udp := false, false
	for _, p := range ports {
		tcp, udp = tcp || p == "-t", udp || p == "-u"
	}
	if !tcp {
		args = append(args, "-t", "none")
	}
	if !udp {
		args = append(args, "-u", "none")
	}
	return append(args, "-T", "none", "-U", "none", "--no-map-gw", "--quiet", "--netns", netns, "--map-guest-addr", "169.254.1.2")
}

// All that Podman 5 does with a container's network, from its start to its end.
func TestCompatPastaServesPodman5(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter", "ip", "nc", "dig")
	routeToWorld(t)
	n := newNetNSFile(t)
	tcp, udp := freePort(t), freePort(t)
	out, status := callPasta(t, "pasta", podmansPasta(n.path,
		"-t", fmt.Sprintf("%d-%d:80-80", tcp, tcp), "-u", fmt.Sprintf("127.0.0.1/%d-%d:53-53", udp, udp))...)
	if out != "" || status != 0 {
		t.Fatalf("%d\n%s", status, out)
	}
	// It reads the addresses at once.
	addresses := n.inside("ip -o addr show dev host0")
	for _, want := range []string{hostAddr4 + "/24", hostAddr6 + "/64"} {
		if !strings.Contains(addresses, want) {
			t.Errorf("the namespace's addresses are not the host's:\n%s", addresses)
		}
	}
	if routes := n.inside("ip route; ip -6 route"); !strings.Contains(routes, "default via "+remoteAddr4) || !strings.Contains(routes, "default via "+remoteAddr6) {
		t.Errorf("routes:\n%s", routes)
	}

	// Published ports, from the host itself and from elsewhere.
	n.serve("who", "tcp", ":80")
	n.serve("who", "udp4", ":53")
	// The host's own connections would come from the sandbox's own address, or
	// from loopback: they come from the gateway.
	eventuallySays(t, "tcp", fmt.Sprintf("%s:%d", hostAddr4, tcp), remoteAddr4+":")
	eventuallySays(t, "tcp", fmt.Sprintf("127.0.0.1:%d", tcp), remoteAddr4+":")
	eventuallySays(t, "tcp", fmt.Sprintf("[::1]:%d", tcp), "["+remoteAddr6+"]:")
	eventuallySays(t, "udp", fmt.Sprintf("127.0.0.1:%d", udp), remoteAddr4+":")
	for _, from := range []string{remoteAddr4, remoteAddr6} {
		host := map[string]string{remoteAddr4: hostAddr4, remoteAddr6: "[" + hostAddr6 + "]"}[from]
		var got string
		remote(t, func() { got = says("tcp", fmt.Sprintf("%s:%d", host, tcp)) })
		if !strings.Contains(got, from+"]") && !strings.HasPrefix(got, from+":") {
			t.Errorf("a connection from %s comes from %s", from, got)
		}
		remote(t, func() { got = says("udp", fmt.Sprintf("%s:%d", host, udp)) })
		if !strings.Contains(got, "refused") {
			t.Errorf("a port on 127.0.0.1 answers %s with %s", from, got)
		}
	}

	// The way out: the host by its special address and not by its loopback, other
	// hosts, names.
	loopback, own := greeter(t, "127.0.0.1", "loopback"), greeter(t, hostAddr4, "host")
	if got := n.inside("nc -w 3 169.254.1.2 " + own + " </dev/null"); got != "host\n" {
		t.Errorf("169.254.1.2: %q", got)
	}
	for _, to := range []string{"169.254.1.2", remoteAddr4} {
		if got := n.inside("nc -w 3 " + to + " " + loopback + " </dev/null"); strings.Contains(got, "loopback") {
			t.Errorf("the host's loopback answers at %s", to)
		}
	}
	var away string
	remote(t, func() { away = greeter(t, remoteAddr4, "remote") })
	if got := n.inside("nc -w 3 " + remoteAddr4 + " " + away + " </dev/null"); got != "remote\n" {
		t.Errorf("the host's router: %q", got)
	}
	if got := n.inside("dig +time=3 +tries=1 @169.254.1.1 host.sbxnet.internal"); !strings.Contains(got, "status: NOERROR") {
		t.Errorf("names:\n%s", got)
	}
	if got := n.inside("dig +tcp +time=3 +tries=1 @169.254.1.1 host.sbxnet.internal"); !strings.Contains(got, "status: NOERROR") {
		t.Errorf("names by TCP:\n%s", got)
	}

	// The end: the path goes, and so does pasta, with the ports.
	n.remove()
	assertFree(t, tcp)
}

// assertFree asserts that a port can be bound within the time that a container's
// restart takes.
func assertFree(t *testing.T, port int) {
	t.Helper()
	var err error
	for range 500 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			l.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("the port is still taken: %v", err)
}

// A container that is started again has its port at once, however close upon its
// end.
func TestCompatPastaRestartGetsItsPort(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter")
	routeToWorld(t)
	port := freePort(t)
	rounds := 100
	if raceEnabled {
		rounds = 20 // each start takes five times as long
	}
	for i := range rounds {
		n := newNetNSFile(t)
		out, status := callPasta(t, "pasta", podmansPasta(n.path, "-t", fmt.Sprintf("%d-%d:80-80", port, port))...)
		if out != "" || status != 0 {
			t.Fatalf("start %d: %d\n%s", i, status, out)
		}
		server := n.serve("who", "tcp", ":80")
		eventuallySays(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port), remoteAddr4+":")
		server.cmd.Process.Kill()
		n.remove()
	}
}

func TestCompatPastaManyAtOnce(t *testing.T) {
	if !inAWorld(t) {
		return
	}
	need(t, "nsenter")
	routeToWorld(t)
	const containers = 20
	namespaces, ports := make([]*netnsFile, containers), make([]int, containers)
	for i := range containers {
		namespaces[i], ports[i] = newNetNSFile(t), freePort(t)
	}
	bin := filepath.Join(pastaBin(t), "pasta")
	var wg sync.WaitGroup
	for i, n := range namespaces {
		cmd := command(t, podmansPasta(n.path, "-t", fmt.Sprintf("%d-%d:80-80", ports[i], ports[i]))...)
		cmd.Path, cmd.Args[0] = bin, "pasta"
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
				t.Errorf("container %d: %v\n%s", i, err, out)
			}
		})
	}
	wg.Wait()
	for i, n := range namespaces {
		n.serve("who", "tcp", ":80")
		eventuallySays(t, "tcp", fmt.Sprintf("127.0.0.1:%d", ports[i]), remoteAddr4+":")
	}
	for _, n := range namespaces {
		n.remove()
	}
	for _, port := range ports {
		assertFree(t, port)
	}
}

// podman5 is Podman 5 or later: $SBXNET_PODMAN5, podman5, or podman. .ci/podman5
// builds one.
func podman5(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("SBXNET_PODMAN5"), "podman5", "podman"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := exec.Command(path, "--version").Output()
		var called string // as its file is
		var major int
		if _, scan := fmt.Sscanf(string(out), "%s version %d.", &called, &major); err == nil && scan == nil && major >= 5 {
			return path
		}
	}
	const none = "no Podman 5 or later: build one with .ci/podman5 FILE, and name it in SBXNET_PODMAN5"
	if os.Getenv("CI") == "true" {
		t.Fatal(none)
	}
	t.Skip(none)
	return ""
}

// newPodman5 is a real rootless Podman 5 that finds our program as pasta, which is
// its default network.
func newPodman5(t *testing.T) *podman {
	t.Helper()
	path := podman5(t)
	need(t, "runc", "newuidmap", "newgidmap", "busybox")
	needTAP(t)
	sceneOf(t) // ends after what follows
	dir, err := os.MkdirTemp("/tmp", "sbxp")
	if err != nil {
		t.Fatal(err)
	}
	p := &podman{t: t, user: findPodmanUser(t), dir: dir}
	t.Cleanup(p.end)
	p.must(os.Chmod(dir, 0o711))
	p.makeHome()
	p.must(os.Symlink(path, dir+"/bin/podman"))
	t.Setenv("PATH", dir+"/bin:"+os.Getenv("PATH"))
	p.must(os.Symlink(sbxnet, dir+"/bin/pasta"))
	// Podman looks for it at every start, and runs it for its bridges only.
	p.must(os.WriteFile(dir+"/bin/netavark", []byte("#!/bin/sh\nexit 1\n"), 0o755))
	p.write(p.home()+"/.config/containers/containers.conf", fmt.Sprintf(`[containers]
seccomp_profile = "unconfined"
[engine]
helper_binaries_dir = [%q]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
`, dir+"/bin"))
	p.write(p.home()+"/.config/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	p.ok("import", p.makeImage(), image)
	return p
}

// run5 is podman run, with pasta's options.
func run5(options string, flags ...string) []string {
	network := "pasta"
	if options != "" {
		network += ":" + options
	}
	return append([]string{"--network", network}, flags...)
}

func TestCompatPodman5OverPasta(t *testing.T) {
	p := newPodman5(t)
	port, private := freePort(t), freePort(t)
	args := append([]string{"run", "-d"}, p.tools()...)
	args = append(args, run5("", "-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("127.0.0.1:%d:80", private))...)
	id := p.ok(append(append(args, image), httpd...)...)
	p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
	p.fetch(fmt.Sprintf("%s:%d", hostAddr(t), port))
	p.fetch(fmt.Sprintf("127.0.0.1:%d", private))
	if got := p.ok("exec", id, "ip", "-o", "-4", "addr"); !strings.Contains(got, hostAddr(t)+"/") {
		t.Errorf("the container has not the host's address:\n%s", got)
	}
	if got := p.ok("exec", id, "nslookup", "host.sbxnet.internal"); !strings.Contains(got, "169.254.1.1") {
		t.Errorf("names:\n%s", got)
	}
	host := greeter(t, hostAddr(t), "hello from the host")
	if got := p.ok("exec", id, "nc", "-w", "3", "host.containers.internal", host); got != "hello from the host" {
		t.Errorf("host.containers.internal: %q", got)
	}
	// Its port is there again at once, several times.
	for range 5 {
		p.ok("restart", "-t", "0", id)
		p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
	}
	p.ok("rm", "-f", "-t", "0", id)
	assertFree(t, port)
	assertFree(t, private)
	p.assertNoNetworks()
}

// Options behind "pasta:", the error that Podman shows of one that is none, and
// the example of its manual.
func TestCompatPodman5PassesOptions(t *testing.T) {
	p := newPodman5(t)
	script := func(options, script string) (string, error) {
		return p.try(append(append([]string{"run", "--rm"}, run5(options)...), image, "sh", "-c", script)...)
	}
	got, err := script("--ipv4-only,-a,10.0.2.0,-n,24,-g,10.0.2.2,--dns-forward,10.0.2.3,-m,1500,--no-ndp,--no-dhcpv6,--no-dhcp,-I,foo0",
		"ip addr show dev foo0; ip route; nslookup host.sbxnet.internal")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"inet 10.0.2.0/24", "mtu 1500", "default via 10.0.2.2 dev foo0", "10.0.2.3"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if _, err := script("--bogus", "true"); err == nil || !strings.Contains(err.Error(), "unrecognized option '--bogus'") {
		t.Errorf("--bogus: %v", err)
	}
	loopback := greeter(t, "127.0.0.1", "loopback")
	if got, err := script("--map-gw", "nc -w 3 $(ip route | head -n 1 | { read a b c d; echo $c; }) "+loopback); err != nil || got != "loopback" {
		t.Errorf("--map-gw: %q, %v", got, err)
	}
	for _, ports := range []string{"auto", loopback} {
		if got, err := script("-T,"+ports, "nc -w 3 127.0.0.1 "+loopback); err != nil || got != "loopback" {
			t.Errorf("-T,%s: %q, %v", ports, got, err)
		}
	}
}
