package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// peerNetworks are the other tools that are on PATH.
func peerNetworks() []network {
	var found []network
	for _, p := range []struct {
		needs []string
		network
	}{
		{[]string{"pasta"}, pasta()},
		{[]string{"slirp4netns"}, slirp4netns()},
		{[]string{"rootlesskit"}, gvisorTapVsock()},
	} {
		ok := true
		for _, program := range p.needs {
			_, err := exec.LookPath(program)
			ok = ok && err == nil
		}
		if ok {
			found = append(found, p.network)
		}
	}
	return found
}

func pasta() network {
	return network{
		name: "pasta", hasMTU: true,
		start: func(e *environment, mtu int) (*session, error) {
			port, err := freePort()
			if err != nil {
				return nil, err
			}
			args := []string{"-q", "-f", "--config-net", "-4", "-a", sandboxAddr, "-n", "24", "-g", gatewayAddr, "-m", strconv.Itoa(mtu),
				"-t", fmt.Sprintf("127.0.0.1/%d:%d", port, workerPort), "-u", "none", "-T", "none", "-U", "none",
				"--", e.self, "worker", strconv.Itoa(workerPort)}
			w, err := startWorker(exec.Command("pasta", args...))
			if err != nil {
				return nil, err
			}
			return &session{
				worker: w, outside: at(gatewayAddr, e.server.port()), published: at("127.0.0.1", port),
				carriers: func() []int { return carriers(w.cmd.Process.Pid, e.self) },
			}, nil
		},
		bare: func(*environment) *exec.Cmd { return exec.Command("pasta", "-q", "-f", "--config-net", "--", "true") },
	}
}

// slirp4netns attaches to namespaces that exist: the worker is started in new
// ones, and waits for its first order while slirp4netns sets them up.
func slirp4netns() network {
	return network{
		name: "slirp4netns", hasMTU: true,
		start: func(e *environment, mtu int) (*session, error) {
			cmd := exec.Command(e.self, "worker", strconv.Itoa(workerPort))
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}
			w, err := startWorker(cmd)
			if err != nil {
				return nil, err
			}
			ready, tell, err := os.Pipe()
			if err != nil {
				w.stop()
				return nil, err
			}
			defer ready.Close()
			socket := filepath.Join(e.scratch, fmt.Sprintf("slirp-%d.sock", w.cmd.Process.Pid))
			slirp := exec.Command("slirp4netns", "--configure", "--cidr", cidr, "--mtu", strconv.Itoa(mtu),
				"--ready-fd=3", "--api-socket", socket, strconv.Itoa(w.cmd.Process.Pid), "tap0")
			slirp.ExtraFiles = []*os.File{tell}
			err = launch(slirp)
			tell.Close()
			if err == nil {
				if n, _ := ready.Read(make([]byte, 1)); n == 0 {
					err = fmt.Errorf("slirp4netns did not become ready")
				}
			}
			s := &session{
				worker: w, outside: at(gatewayAddr, e.server.port()),
				carriers: func() []int { return []int{slirp.Process.Pid} },
				cleanUp: func() {
					if slirp.Process != nil {
						slirp.Process.Kill()
						finish(slirp)
					}
					os.Remove(socket)
				},
			}
			if err == nil {
				s.published, err = slirpForward(socket)
			}
			if err != nil {
				s.close()
				return nil, err
			}
			return s, nil
		},
	}
}

// gvisorTapVsock is RootlessKit with its network driver of that name and its
// own port driver. The host's loopback is at 10.0.2.1 and nowhere else, so the
// block is not ours to choose.
func gvisorTapVsock() network {
	return network{
		name: "gvisor-tap-vsock", hasMTU: true,
		start: func(e *environment, mtu int) (*session, error) {
			port, err := freePort()
			if err != nil {
				return nil, err
			}
			state := filepath.Join(e.scratch, fmt.Sprintf("rootlesskit-%d", port))
			args := []string{"--state-dir", state, "--net=gvisor-tap-vsock", "--cidr", "10.0.2.0/24", "--mtu", strconv.Itoa(mtu), "--port-driver=builtin", "--copy-up=/etc",
				"-p", fmt.Sprintf("127.0.0.1:%d:%d/tcp", port, workerPort), e.self, "worker", strconv.Itoa(workerPort)}
			w, err := startWorker(exec.Command("rootlesskit", args...))
			if err != nil {
				return nil, err
			}
			return &session{
				worker: w, outside: at("10.0.2.1", e.server.port()), published: at("127.0.0.1", port),
				carriers: func() []int { return carriers(w.cmd.Process.Pid, e.self) },
				cleanUp:  func() { os.RemoveAll(state) },
			}, nil
		},
		bare: func(e *environment) *exec.Cmd {
			return exec.Command("rootlesskit", "--net=gvisor-tap-vsock", "true")
		},
	}
}
