package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// A network is one way to give the worker a network, at one MTU.
type network struct {
	name string
	// hasMTU is false for native loopback, whose MTU is not ours to set.
	hasMTU bool
	// variant is one with something changed: it takes only what that can move.
	variant bool
	// published: it takes what a published port carries, too.
	published bool
	start     func(e *environment, mtu int) (*session, error)
	// bare runs `true` in the network, for the time from start to exit.
	bare func(e *environment) *exec.Cmd
}

// takes reports whether a network carries a measurement.
func (n network) takes(m measurement) bool {
	if n.variant {
		return m.variants || m.published && n.published
	}
	return true
}

// A session is a worker in its network.
type session struct {
	*worker
	// outside is where the worker reaches the bench's server.
	outside string
	// published is where the bench reaches the worker's server, empty if it can't.
	published string
	// carriers are the processes that carry the traffic, without the worker.
	carriers func() []int
	cleanUp  func()
}

func (s *session) close() {
	s.stop()
	if s.cleanUp != nil {
		s.cleanUp()
	}
}

// environment is what networks need to know to start.
type environment struct {
	sbxnet  string
	self    string
	server  *server
	scratch string
}

// The sandbox's addresses, in a block that neither a default of ours nor of a
// peer uses.
const (
	cidr        = "10.113.0.0/24"
	gatewayAddr = "10.113.0.2"
	sandboxAddr = "10.113.0.100"
)

func native() network {
	return network{
		name: "native",
		start: func(e *environment, _ int) (*session, error) {
			port, err := freePort()
			if err != nil {
				return nil, err
			}
			w, err := startWorker(exec.Command(e.self, "worker", strconv.Itoa(port)))
			if err != nil {
				return nil, err
			}
			return &session{
				worker: w, outside: at("127.0.0.1", e.server.port()), published: at("127.0.0.1", port),
				carriers: func() []int { return nil },
			}, nil
		},
		bare: func(*environment) *exec.Cmd { return exec.Command("true") },
	}
}

// sbxnetWith is sbxnet with more flags than those that the bench needs.
func sbxnetWith(name string, flags ...string) network {
	return network{
		name: name, hasMTU: true,
		start: func(e *environment, mtu int) (*session, error) {
			port, err := freePort()
			if err != nil {
				return nil, err
			}
			args := []string{"run", "-q", "--host-loopback", "--cidr", cidr, "--mtu", strconv.Itoa(mtu),
				"-p", fmt.Sprintf("127.0.0.1:%d:%d", port, workerPort)}
			args = append(append(args, flags...), "--", e.self, "worker", strconv.Itoa(workerPort))
			w, err := startWorker(exec.Command(e.sbxnet, args...))
			if err != nil {
				return nil, err
			}
			return &session{
				worker: w, outside: at(gatewayAddr, e.server.port()), published: at("127.0.0.1", port),
				carriers: func() []int { return carriers(w.cmd.Process.Pid, e.self) },
			}, nil
		},
		bare: func(e *environment) *exec.Cmd {
			return exec.Command(e.sbxnet, append(append([]string{"run", "-q"}, flags...), "--", "true")...)
		},
	}
}

// variantOf is sbxnet with something changed.
func variantOf(name string, flags ...string) network {
	n := sbxnetWith("sbxnet "+name, flags...)
	n.variant, n.bare = true, nil
	return n
}

// linkVariant is one that has bulk stay on the link, which is what it changes.
func linkVariant(name string, flags ...string) network {
	return variantOf(name, append(flags, "--splice=false")...)
}

// publishedVariant is a variant that takes published ports' measurements, too.
func publishedVariant(n network) network {
	n.published = true
	return n
}

// networks are the contestants that this machine has, native loopback first.
func networks(quick, peers bool) []network {
	all := []network{native(), sbxnetWith("sbxnet"), sbxnetWith("sbxnet packet", "--link", "packet")}
	if peers {
		all = append(all, peerNetworks()...)
	}
	if quick {
		return all
	}
	return append(all,
		publishedVariant(linkVariant("no splice")),
		linkVariant("software GSO", "--gso=false"),
		linkVariant("no GSO", "--gso=false", "--software-gso=false"),
		linkVariant("no GRO", "--gro=false"),
		linkVariant("no TX csum", "--tx-checksum-offload=false"),
		linkVariant("no RX csum", "--rx-checksum-offload=false"),
		linkVariant("no offload", "--gso=false", "--software-gso=false", "--gro=false", "--tx-checksum-offload=false", "--rx-checksum-offload=false"),
		linkVariant("1 queue", "--num-network-channels", "1"),
		linkVariant("2 queues", "--num-network-channels", "2"),
		linkVariant("4 queues", "--num-network-channels", "4"))
}

// findSbxnet takes sbxnet from beside this program or PATH, and builds it where
// the bench was started with `go run` in the module.
func findSbxnet(self, scratch string) (string, error) {
	beside := filepath.Join(filepath.Dir(self), "sbxnet")
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	built := filepath.Join(scratch, "sbxnet")
	build := exec.Command("go", "build", "-o", built, "sbxnet/cmd/sbxnet")
	if out, err := build.CombinedOutput(); err == nil {
		return built, nil
	} else if found, lookErr := exec.LookPath("sbxnet"); lookErr == nil {
		return found, nil
	} else {
		return "", fmt.Errorf("find sbxnet: not beside sbxbench, not on PATH, and go build says: %w: %s; pass --sbxnet PATH", err, out)
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func at(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// waitReachable waits until a published port leads to the worker.
func waitReachable(addr string) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err = count(addr); err == nil {
			return nil
		}
	}
	return fmt.Errorf("reach the published port %s: %w", addr, err)
}
