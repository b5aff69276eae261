package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// dockerd28 is a dockerd that opens its ports by RootlessKit's API itself, as it
// does from version 28 on: the one that SBXNET_DOCKERD28 names, or else the one
// in PATH. Its docker-proxy is beside it. Debian has no such version, so no machine
// is at fault that has none.
func dockerd28(t *testing.T) string {
	t.Helper()
	path := os.Getenv("SBXNET_DOCKERD28")
	if path != "" {
		return path
	}
	path, err := exec.LookPath("dockerd")
	if err == nil {
		out, _ := exec.Command(path, "--version").Output()
		if v := regexp.MustCompile(`version (\d+)\.`).FindSubmatch(out); v != nil {
			if major, _ := strconv.Atoi(string(v[1])); major >= 28 {
				return path
			}
		}
	}
	t.Skip("there is no dockerd of version 28 or later; SBXNET_DOCKERD28 can name one")
	return ""
}

// newDocker28 starts it in a sandbox.
func newDocker28(t *testing.T, host string) *docker {
	t.Helper()
	path := dockerd28(t)
	return newDockerWith(t, host, func(d *docker) {
		for _, name := range []string{"dockerd", "docker-proxy"} {
			d.must(os.Symlink(filepath.Join(filepath.Dir(path), name), d.ours+"/"+name))
		}
	})
}

func TestCompatDocker28PublishedPorts(t *testing.T) {
	for host := range dockerHosts {
		t.Run(host, func(t *testing.T) {
			d := newDocker28(t, host)
			port, host := steadyPort(t), hostAddr(t)
			id := d.serve("-p", fmt.Sprintf("%d:80", port), "-p", fmt.Sprintf("%d:53/udp", port))
			for _, network := range []string{"tcp", "udp"} {
				if seen := d.seenAs(network, on(host, port)); seen != host {
					t.Errorf("%s: the container sees %s, want the client's own %s", network, seen, host)
				}
				if seen := d.seenAs(network, on("127.0.0.1", port)); seen != "10.0.2.2" {
					t.Errorf("%s: the container sees a client on the host's loopback as %s, want the gateway", network, seen)
				}
			}
			d.docker("stop", "-t", "0", id)
			l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port)) // at once
			if err != nil {
				t.Fatalf("after docker stop: %v", err)
			}
			l.Close()
		})
	}
}

// Ports of the two families are two, also with one number.
func TestCompatDocker28PublishedPortsOverIPv6(t *testing.T) {
	if !loopback6() {
		unavailable(t, "this machine has no ::1")
	}
	for host := range dockerHosts {
		t.Run(host, func(t *testing.T) {
			d := newDocker28(t, host)
			port, both := steadyPort(t), steadyPort(t)
			four := d.serve("-p", fmt.Sprintf("127.0.0.1:%d:80", port))
			six := d.serve("-p", fmt.Sprintf("[::1]:%d:80", port), "-p", fmt.Sprintf("%d:80", both), "-p", fmt.Sprintf("%d:53/udp", both))
			for _, network := range []string{"tcp", "udp"} {
				for _, client := range []string{"127.0.0.1", "::1"} {
					d.seenAs(network, on(client, both))
				}
			}
			d.seenAs("tcp", on("::1", port))
			d.docker("stop", "-t", "0", four)
			if seen := whoami("tcp", on("127.0.0.1", port)); seen != "" {
				t.Errorf("the IPv4 port of a stopped container leads to the other, which sees %s", seen)
			}
			d.seenAs("tcp", on("::1", port))
			d.docker("restart", "-t", "0", six)
			d.seenAs("tcp", on("::1", port))
			d.docker("stop", "-t", "0", six)
			for _, network := range []string{"tcp4", "tcp6"} { // at once
				for _, port := range []int{port, both} {
					l, err := net.Listen(network, fmt.Sprintf(":%d", port))
					if err != nil {
						t.Errorf("after docker stop: %v", err)
						continue
					}
					l.Close()
				}
			}
			pc, err := net.ListenPacket("udp6", fmt.Sprintf(":%d", both))
			if err != nil {
				t.Fatalf("after docker stop: %v", err)
			}
			pc.Close()
		})
	}
}

func TestCompatDocker28TakenPort(t *testing.T) {
	d := newDocker28(t, "rootlesskit")
	port := steadyPort(t)
	l, err := net.Listen("tcp4", fmt.Sprint("0.0.0.0:", port))
	d.must(err)
	if out, err := d.tryDocker(d.serving([]string{"-p", fmt.Sprintf("%d:80", port)})...); err == nil || !regexp.MustCompile("already in use").MatchString(err.Error()) {
		t.Errorf("a port that somebody on the host has: %s, %v", out, err)
	}
	l.Close()
	d.serve("-p", fmt.Sprintf("%d:80", port))
	d.seenAs("tcp", on("127.0.0.1", port))
}

func TestCompatDocker28LeavesNothing(t *testing.T) {
	for _, end := range []string{"TERM", "KILL"} {
		t.Run(end, func(t *testing.T) {
			d := newDocker28(t, "rootlesskit")
			port := steadyPort(t)
			d.serve("-p", fmt.Sprintf("%d:80", port))
			d.seenAs("tcp", on("127.0.0.1", port))
			if end == "TERM" {
				d.endDaemon()
			} else {
				d.kill()
			}
			d.silent(port)
			d.gone()
		})
	}
}
