package e2e

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A container that is started again gets its port at once, though its
// predecessor's network is only just gone.
func TestCompatPodmanRestartedContainerHasItsPortAtOnce(t *testing.T) {
	p := newPodman(t)
	for _, handler := range portHandlers {
		port := freePort(t)
		id := p.start(container{"port_handler=" + handler, []string{"-p", fmt.Sprintf("%d:80", port)}}, httpd...)
		for range 5 {
			p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
			p.ok("restart", "-t", "0", id)
		}
		p.ok("stop", "-t", "0", id)
		p.ok("start", id)
		p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
		p.ok("rm", "-f", "-t", "0", id)
	}
}

// One port, one container after another.
func TestCompatPodmanManyContainersInARow(t *testing.T) {
	p := newPodman(t)
	n := 100
	if testing.Short() {
		n = 20
	}
	port := freePort(t)
	for i := range n {
		handler := portHandlers[(i+1)%2]
		id := p.start(container{"port_handler=" + handler, []string{"-p", fmt.Sprintf("127.0.0.1:%d:80", port)}}, httpd...)
		p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
		p.ok("rm", "-f", "-t", "0", id)
	}
	p.assertNoNetworks()
}

func TestCompatPodmanTwentyContainersAtOnce(t *testing.T) {
	const n = 20
	p := newPodman(t)
	ports := make([]int, n)
	for i := range ports {
		ports[i] = freePort(t)
	}
	var starting sync.WaitGroup
	var mu sync.Mutex
	ids := []string{"rm", "-f", "-t", "0"}
	for i := range n {
		starting.Go(func() {
			id, err := p.try(container{"port_handler=slirp4netns", []string{"-p", fmt.Sprintf("127.0.0.1:%d:80", ports[i])}}.args([]string{"run", "-d"}, httpd...)...)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, id)
		})
	}
	starting.Wait()
	if t.Failed() {
		return
	}
	for i := range n {
		p.fetch(fmt.Sprintf("127.0.0.1:%d", ports[i]))
	}
	p.ok(ids...)
	for i := range n {
		p.waitFree(ports[i])
	}
	p.assertNoNetworks()
}

// A container whose network is killed loses it, leaves nothing, and has it
// again when it is started again.
func TestCompatPodmanSurvivesTheDeathOfItsNetwork(t *testing.T) {
	p := newPodman(t)
	port := freePort(t)
	id := p.start(container{"port_handler=slirp4netns", []string{"-p", fmt.Sprintf("127.0.0.1:%d:80", port)}}, httpd...)
	p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
	ours := p.networks()
	if len(ours) == 0 {
		t.Fatal("no process of ours carries the container")
	}
	for _, pid := range ours {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	p.eventually("end of our processes", func() bool { return len(p.networks()) == 0 })
	p.waitFree(port)
	p.ok("restart", "-t", "0", id)
	p.fetch(fmt.Sprintf("127.0.0.1:%d", port))
	begin := time.Now()
	p.ok("rm", "-f", "-t", "0", id)
	p.assertNoNetworks()
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("it took %v to end", d)
	}
}
