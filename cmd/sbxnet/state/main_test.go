package state

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/netstack/header"
	"sbxnet/portfwd"
	"sbxnet/tapdev"
)

// runtimeDir gives a test a runtime directory of its own.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return dir
}

// testPlan is the default one.
func testPlan() network.Plan {
	return network.Plan{V4: network.Layout(network.DefaultCIDR4), V6: network.Layout(network.DefaultCIDR6)}
}

// realPorts are the ports of a forwarder that runs, on a link to nobody.
func realPorts(t *testing.T) *network.Ports {
	t.Helper()
	near, far := tapdev.NewChannel(1500)
	plan := testPlan()
	addresses := func(f network.Family) portfwd.Addresses {
		return portfwd.Addresses{Gateway: f.Gateway, DNS: f.DNS, Sandbox: f.Sandbox, Prefix: f.Prefix}
	}
	f, err := portfwd.New(portfwd.Config{
		Link: near, IPv4: addresses(plan.V4), IPv6: addresses(plan.V6),
		HardwareAddr: header.MAC(network.GatewayMAC), SandboxHardwareAddr: header.MAC(network.SandboxMAC),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); near.Close(); far.Close() })
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	return network.NewPorts(f, nil)
}

// wire is a server, and raw HTTP to it.
type wire struct {
	t      *testing.T
	dir    *Dir
	server *Server
	http   *http.Client
}

// serve starts a server for a sandbox; configure may change it before.
func serve(t *testing.T, ports *network.Ports, configure func(*Sandbox)) *wire {
	t.Helper()
	runtimeDir(t)
	dir, err := Create("web")
	if err != nil {
		t.Fatal(err)
	}
	plan := testPlan()
	sb := Sandbox{
		Dir: dir, ChildPID: 4711, Ports: ports,
		Network: NetworkInfo(plan, network.DNS{}), PortDriver: PortInfo(ports),
		Addresses: []netip.Addr{plan.V4.Sandbox, plan.V6.Sandbox},
	}
	if configure != nil {
		configure(&sb)
	}
	server, err := Serve(sb)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir.Path, "api.sock")
	a := &wire{t: t, dir: dir, server: server, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
	t.Cleanup(func() {
		a.http.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// ask makes a request and returns the answer's status and body.
func (a *wire) ask(method, path, body string) (int, string) {
	a.t.Helper()
	req, err := http.NewRequest(method, "http://rootlesskit"+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		a.t.Errorf("%s %s: Content-Type %q", method, path, got)
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}
