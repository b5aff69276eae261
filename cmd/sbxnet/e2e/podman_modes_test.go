package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Podman 4 finds us on PATH where containers.conf does not name us.
func TestCompatPodmanFindsUsOnPATH(t *testing.T) {
	p := newPodman(t)
	p.write(p.home()+"/.config/containers/containers.conf", "[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"none\"\n")
	p.path = p.dir + "/bin"
	if info := p.ok("info"); !strings.Contains(info, "executable: "+p.slirp()) {
		t.Errorf("podman info does not show us:\n%s", info)
	}
	if got := p.ok("run", "--rm", image, "ip", "addr", "show", "tap0"); !strings.Contains(got, "10.0.2.100/24") {
		t.Errorf("%s", got)
	}
}

// A pod's containers share a network, and the ports of the pod.
func TestCompatPodmanPod(t *testing.T) {
	p := newPodman(t)
	need(t, "catatonit") // what Podman makes the pod's first container of
	for _, handler := range portHandlers {
		port := freePort(t)
		p.ok("pod", "create", "--name", "pod", "--network", "slirp4netns:port_handler="+handler, "-p", fmt.Sprintf("127.0.0.1:%d:80", port))
		p.ok(append([]string{"run", "-d", "--pod", "pod", image}, httpd...)...)
		p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
		if got := p.ok("run", "--rm", "--pod", "pod", image, "wget", "-q", "-O", "-", "http://127.0.0.1/"); got != "hello from a container" {
			t.Errorf("from within the pod: %q", got)
		}
		p.ok("pod", "stop", "-t", "0", "pod")
		p.ok("pod", "start", "pod")
		p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
		p.ok("pod", "rm", "-f", "-t", "0", "pod")
		p.waitFree(port)
	}
	p.ok("rmi", "-f", "-a")
}

// A network of several containers: Podman's bridge lies in a namespace that we
// join to the world.
func TestCompatPodmanBridgeNetwork(t *testing.T) {
	p := newPodman(t)
	need(t, "iptables")
	port := freePort(t)
	p.ok("network", "create", "together")
	defer func() { p.ok("rm", "-a", "-f", "-t", "0"); p.ok("network", "rm", "-f", "together") }()
	id := p.ok(append([]string{"run", "-d", "--network", "together", "-p", fmt.Sprintf("127.0.0.1:%d:80", port), image}, httpd...)...)
	p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
	server := p.ok("inspect", "-f", "{{(index .NetworkSettings.Networks \"together\").IPAddress}}", id)
	if got := p.ok("run", "--rm", "--network", "together", image, "wget", "-q", "-O", "-", "http://"+server); got != "hello from a container" {
		t.Errorf("from its neighbour: %q", got)
	}
	// And out.
	host := hostAddr(t)
	tcp := serveExchange(t, host, podmanTransfer)
	p.ok(append(append([]string{"run", "--rm", "--network", "together"}, p.tools()...), append([]string{image}, toolIn("exchange", host+":"+tcp, fmt.Sprint(podmanTransfer))...)...)...)
}

// What these tests configure is what docs/podman.md tells users to.
func TestCompatPodmanDocumentationNamesOurConfiguration(t *testing.T) {
	b, err := os.ReadFile("../../../docs/podman.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"network_cmd_path = ", "cgroup_manager = \"cgroupfs\"", "runtime = \"runc\"", "port_handler=slirp4netns", "helper_binaries_dir = "} {
		if !strings.Contains(string(b), want) {
			t.Errorf("docs/podman.md does not say %s", want)
		}
	}
}
