package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"strings"
	"time"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
	"sbxnet/tapdev"
	"sbxnet/userns"
)

const (
	// demoPort is where the demo's page is served in the sandbox.
	demoPort = 80
	// reportInterval is how often the host tries what only it can try.
	reportInterval = 3 * time.Second
)

// runDemo is `sbxnet demo`: a sandbox around this same executable, published
// on a free port of the host's loopback.
func (p *program) runDemo() error {
	log := console.NewLogger(p.stderr, "sbxnet", "text", slog.LevelInfo)
	task, hostSide, err := newDemoTask()
	if err != nil {
		return err
	}
	defer hostSide.Close()
	go greet(hostSide, task.hostGreeting())
	s := demoSettings()
	if s.Env, err = task.environment(); err != nil {
		return err
	}
	r, err := start(s, log, nil)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.exec(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		if keepReporting(ctx, task, r.published[0].Host, func() { p.announce(r.published) }) != nil {
			log.Warn("the server in the sandbox does not answer; Ctrl-C ends it")
		}
	}()
	return r.wait()
}

// demoSettings are those of a plain `sbxnet run -p 80 -- THIS demo-server`.
func demoSettings() *settings {
	link := network.LinkOptions(tapdev.Auto, 0)
	link.Name, link.MTU = interfaceName, 1500
	return &settings{
		Publish: []spec.Spec{{Protocol: spec.TCP, Port: demoPort, Count: 1}},
		Splice:  true, Network: userns.NetworkSandbox, UserMap: userns.MapSingle, IPv6: true, NetRaw: true,
		Hostname: "sandbox",
		Link:     link,
		Command:  []string{"/proc/self/exe", demoServerCommand},
	}
}

// newDemoTask opens the listener on the host's loopback that the sandbox must
// not reach, and chooses a port that is free on the host for the sandbox to
// listen on unpublished.
func newDemoTask() (demoTask, net.Listener, error) {
	hostSide, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return demoTask{}, nil, fmt.Errorf("demo: listen on the host's loopback: %w", err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		hostSide.Close()
		return demoTask{}, nil, fmt.Errorf("demo: find a free port: %w", err)
	}
	defer free.Close()
	return demoTask{
		Token:      rand.Text(),
		Mark:       rand.Text(),
		HostPort:   portOf(hostSide),
		ClosedPort: portOf(free),
		Outside:    whoami(),
	}, hostSide, nil
}

func portOf(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

func whoami() string {
	u, err := user.Current()
	if err != nil {
		return fmt.Sprint(os.Getuid())
	}
	return fmt.Sprintf("%s (%s)", u.Uid, u.Username)
}

// environment is this process's, with the task.
func (t demoTask) environment() ([]string, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return append(os.Environ(), demoEnv+"="+string(text)), nil
}

// announce prints where the page is.
func (p *program) announce(published []spec.Bound) {
	fmt.Fprint(p.stdout, "\nA web server is running in a network of its own. Look at it from this machine:\n\n")
	for _, b := range published {
		fmt.Fprintf(p.stdout, "    http://%s\n", b.Host)
	}
	fmt.Fprint(p.stdout, "\nCtrl-C ends it and leaves nothing behind.\n")
}

// startLimit bounds how long the server in the sandbox may take to answer.
const startLimit = 10 * time.Second

// keepReporting tells the server in the sandbox, by way of the port that is
// published, what becomes of trying the one that is not, until ctx is done. It
// calls up once, when the server answers for the first time.
func keepReporting(ctx context.Context, task demoTask, server netip.AddrPort, up func()) error {
	client := &http.Client{Timeout: reportInterval}
	started := time.Now()
	wait := 20 * time.Millisecond
	for {
		err := sendReport(ctx, client, task, server)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && up != nil:
			up()
			up, wait = nil, reportInterval
		case err != nil && up != nil && time.Since(started) > startLimit:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func sendReport(ctx context.Context, client *http.Client, task demoTask, server netip.AddrPort) error {
	body, err := json.Marshal(closedPortCheck(ctx, task))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+server.String()+"/report", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", task.Token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("report: %s", strings.ToLower(resp.Status))
	}
	return nil
}
