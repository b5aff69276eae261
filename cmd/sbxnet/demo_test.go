package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sbxnet/portfwd/dns"
)

func TestDemoIsAPlainRun(t *testing.T) {
	want := typeIn(t, "run", "-p", "80", "--hostname", "sandbox", "--user-map", "single", "--", "/proc/self/exe", demoServerCommand).settings
	got := demoSettings()
	want.LogFormat = ""  // the demo makes its own log
	want.Link = got.Link // the program that matrix.sh builds has another
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The checks of the demo must be able to fail: here, outside of any sandbox,
// they meet what they look for.

func TestLoopbackCheckFailsWhereTheHostIsReached(t *testing.T) {
	task, host, err := newDemoTask()
	if err != nil {
		t.Fatal(err)
	}
	go greet(host, task.hostGreeting())
	c := loopbackCheck(t.Context(), task, nil)
	if c.State != stateFailed || !strings.Contains(c.Detail, host.Addr().String()) {
		t.Errorf("open: %+v", c)
	}
	host.Close()
	if c := loopbackCheck(t.Context(), task, nil); c.State != stateOK || !strings.Contains(c.Detail, "connection refused") {
		t.Errorf("closed: %+v", c)
	}
}

func TestLoopbackCheckTellsStrangersFromTheHost(t *testing.T) {
	task, host, err := newDemoTask()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	go greet(host, "something else")
	if c := loopbackCheck(t.Context(), task, nil); c.State != stateNote {
		t.Errorf("%+v", c)
	}
}

func TestClosedPortCheckFailsWhereTheSandboxIsReached(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	task := demoTask{Mark: "m", ClosedPort: portOf(l)}
	go greet(l, task.sandboxGreeting())
	if c := closedPortCheck(t.Context(), task); c.State != stateFailed {
		t.Errorf("open: %+v", c)
	}
	l.Close()
	if c := closedPortCheck(t.Context(), task); c.State != stateOK || !strings.Contains(c.Detail, "connection refused") {
		t.Errorf("closed: %+v", c)
	}
}

// nameserver answers on loopback as the sandbox's does: its own name itself,
// and example.com with what the host's resolvers would say.
func nameserver(t *testing.T, upstream netip.AddrPort) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	pc, err := net.ListenPacket("udp", at.String())
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	s := dns.New(dns.Config{Upstreams: []netip.AddrPort{upstream}, Gateway4: netip.MustParseAddr("10.0.2.2")})
	go s.Serve(l)
	go s.ServePacket(pc)
	t.Cleanup(func() { s.Close() })
	return at
}

// nobody is a port of loopback where nothing listens.
var nobody = netip.MustParseAddrPort("127.0.0.1:1")

func TestDNSChecks(t *testing.T) {
	alone := nameserver(t, nobody)
	if c := dnsCheck(t.Context(), []netip.AddrPort{alone}); c.State != stateOK || !strings.Contains(c.Detail, "UDP") || !strings.Contains(c.Detail, "TCP") {
		t.Errorf("own name: %+v", c)
	}
	if c := upstreamCheck(t.Context(), []netip.AddrPort{alone}); c.State != stateNote || !strings.Contains(c.Detail, "SERVFAIL") {
		t.Errorf("offline: %+v", c)
	}
	if c := dnsCheck(t.Context(), []netip.AddrPort{alone, nobody}); c.State != stateFailed {
		t.Errorf("a dead server: %+v", c)
	}
	if c := dnsCheck(t.Context(), nil); c.State != stateFailed {
		t.Errorf("no server: %+v", c)
	}
}

func TestEveryCheckIsMadeAndNamed(t *testing.T) {
	s := &demoServer{task: demoTask{HostPort: 1, ClosedPort: 1}, around: surroundings{nameservers: []netip.AddrPort{nobody}}}
	for i, c := range s.runChecks(t.Context()) {
		if c.Name != checkNames[i] || c.State == "" {
			t.Errorf("check %d is %+v, the page says %q", i, c, checkNames[i])
		}
	}
}

// demoSite is the demo's page, served outside of a sandbox.
func demoSite(t *testing.T) (*httptest.Server, demoTask) {
	t.Helper()
	task := demoTask{Token: "secret", Mark: "m", HostPort: 1, ClosedPort: 1, Outside: "1000 (<alice>)"}
	site := httptest.NewServer((&demoServer{task: task, around: surroundings{nameservers: []netip.AddrPort{nobody}}}).handler())
	t.Cleanup(site.Close)
	return site, task
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestPageShowsWhatItPromises(t *testing.T) {
	site, _ := demoSite(t)
	_, page := get(t, site.URL)
	for _, want := range []string{"127.0.0.1/8", "127.0.0.1:", "1000 (&lt;alice&gt;)", "net:[", "Resolver", "Routes", checkDNS, checkClosedPort} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	for _, path := range []string{"/style.css", "/checks.js", "/checks"} {
		if resp, body := get(t, site.URL+path); resp.StatusCode != http.StatusOK || body == "" {
			t.Errorf("%s: %s, %d bytes", path, resp.Status, len(body))
		}
	}
	if resp, _ := get(t, site.URL+"/demo_server.go"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("another path: %s", resp.Status)
	}
}

// Nothing on the page comes from elsewhere, and the policy says so.
func TestPageHasNoExternalResources(t *testing.T) {
	site, _ := demoSite(t)
	for _, path := range []string{"/", "/style.css", "/checks.js"} {
		resp, body := get(t, site.URL+path)
		if strings.Contains(body, "//") && path == "/" || strings.Contains(body, "http:") && path != "/" || strings.Contains(body, "@import") {
			t.Errorf("%s names something outside", path)
		}
		if p := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(p, "default-src 'self'") {
			t.Errorf("%s: policy %q", path, p)
		}
	}
}

func TestOnlyTheDemoReports(t *testing.T) {
	site, task := demoSite(t)
	server := netip.MustParseAddrPort(strings.TrimPrefix(site.URL, "http://"))
	stranger := task
	stranger.Token = "guess"
	if err := sendReport(t.Context(), http.DefaultClient, stranger, server); err == nil {
		t.Error("a report with another token is taken")
	}
	if c := reported(t, site); c.State != stateWaiting {
		t.Errorf("before a report: %+v", c)
	}
	if err := sendReport(t.Context(), http.DefaultClient, task, server); err != nil {
		t.Fatal(err)
	}
	if c := reported(t, site); c.State != stateOK {
		t.Errorf("after it: %+v", c)
	}
}

func reported(t *testing.T, site *httptest.Server) check {
	t.Helper()
	_, body := get(t, site.URL+"/checks")
	var all []check
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Name == checkClosedPort {
			return c
		}
	}
	t.Fatalf("no %q in %s", checkClosedPort, body)
	return check{}
}
