package state

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rootless-containers/rootlesskit/v3/pkg/api/client"
	"github.com/rootless-containers/rootlesskit/v3/pkg/port"

	"sbxnet/cmd/sbxnet/network"
)

// given are the ports that freePort has returned: of eight that a test asks for,
// two would be the same every now and then.
var given = map[int]bool{}

// freePort is a port that is free on every address, TCP and UDP, for the moment,
// and another one each time. The tests' own goroutine calls it.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		l.Close()
		if err != nil {
			continue
		}
		c.Close()
		if !given[port] {
			given[port] = true
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// canBind reports whether a TCP port of 127.0.0.1 is free.
func canBind(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		l.Close()
	}
	return err == nil
}

func TestInfoIsWhatRootlessKitsClientsRead(t *testing.T) {
	a := serve(t, realPorts(t), nil)
	status, body := a.ask("GET", "/v1/info", "")
	var info map[string]any
	if err := json.Unmarshal([]byte(body), &info); err != nil || status != 200 {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	driver, _ := info["networkDriver"].(map[string]any)
	ports, _ := info["portDriver"].(map[string]any)
	for what, got := range map[string][2]any{
		"apiVersion":    {strings.HasPrefix(info["apiVersion"].(string), "1.1."), true},
		"stateDir":      {info["stateDir"], a.dir.Path},
		"childPID":      {info["childPID"], 4711.0},
		"networkDriver": {fmt.Sprintf("%v %v %v %v", driver["driver"], driver["dns"], driver["childIP"], driver["ipv6"]), "sbxnet [10.0.2.3 fd00::3] 10.0.2.100 true"},
		"portDriver":    {fmt.Sprintf("%v %v %v", ports["driver"], ports["protos"], ports["disallowLoopbackChildIP"]), "sbxnet [tcp tcp4 udp udp4] true"},
	} {
		if fmt.Sprint(got[0]) != fmt.Sprint(got[1]) {
			t.Errorf("%s: %v, want %v", what, got[0], got[1])
		}
	}
}

// RootlessKit's own client does what rootlessctl does with it.
func TestRootlessKitsClient(t *testing.T) {
	a := serve(t, realPorts(t), nil)
	c, err := client.New(filepath.Join(a.dir.Path, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	if _, err := c.Info(ctx); err != nil {
		t.Fatal(err)
	}
	list, err := c.PortManager().ListPorts(ctx)
	if err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	want := port.Spec{Proto: "tcp4", ParentIP: "127.0.0.1", ParentPort: freePort(t), ChildIP: "10.0.2.100", ChildPort: 80}
	added, err := c.PortManager().AddPort(ctx, want)
	if err != nil || added.ID != 1 || added.Spec != want {
		t.Fatalf("%+v, %v", added, err)
	}
	if canBind(want.ParentPort) {
		t.Error("nobody listens")
	}
	if list, err = c.PortManager().ListPorts(ctx); err != nil || len(list) != 1 || list[0] != *added {
		t.Errorf("%+v, %v", list, err)
	}
	if err := c.PortManager().RemovePort(ctx, added.ID); err != nil {
		t.Fatal(err)
	}
	if !canBind(want.ParentPort) {
		t.Error("the port is not free after the answer")
	}
	if err := c.PortManager().RemovePort(ctx, added.ID); err == nil {
		t.Error("removed twice")
	}
}

func TestBadRequestsChangeNothing(t *testing.T) {
	ports := realPorts(t)
	a := serve(t, ports, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	free := freePort(t)
	huge := strings.Repeat("x", 4<<20)
	for _, c := range []struct {
		method, path, body string
		status             int
		message            string // part of it
	}{
		{"POST", "/v1/ports", "", 400, "EOF"},
		{"POST", "/v1/ports", "{", 400, "unexpected EOF"},
		{"POST", "/v1/ports", "[]", 400, "cannot unmarshal"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentPort":"80","childPort":80}`, 400, "cannot unmarshal"},
		{"POST", "/v1/ports", `{"proto":"tcp","childPort":80}`, 400, "invalid ParentPort: 0"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentPort":70000,"childPort":80}`, 400, "invalid ParentPort: 70000"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentPort":-1,"childPort":80}`, 400, "invalid ParentPort: -1"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentPort":8080,"childPort":0}`, 400, "invalid ChildPort: 0"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentPort":1e99,"childPort":80}`, 400, "cannot unmarshal"},
		{"POST", "/v1/ports", `{"proto":"","parentPort":8080,"childPort":80}`, 400, "unknown proto"},
		{"POST", "/v1/ports", `{"proto":"sctp","parentPort":8080,"childPort":80}`, 400, "cannot be published"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentIP":"localhost","parentPort":8080,"childPort":80}`, 400, "invalid ParentIP"},
		{"POST", "/v1/ports", `{"proto":"tcp6","parentIP":"127.0.0.1","parentPort":8080,"childPort":80}`, 400, "other family"},
		{"POST", "/v1/ports", `{"proto":"tcp4","parentIP":"::1","parentPort":8080,"childPort":80}`, 400, "other family"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentPort":8080,"childPort":80,"childIP":"inside"}`, 400, "invalid ChildIP"},
		{"POST", "/v1/ports", fmt.Sprintf(`{"proto":"tcp","parentIP":"127.0.0.1","parentPort":%d,"childPort":80}`, taken), 400, "in use"},
		{"POST", "/v1/ports", `{"proto":"tcp","parentIP":"192.0.2.1","parentPort":8080,"childPort":80}`, 400, "192.0.2.1"},
		{"POST", "/v1/ports", `{"proto":"` + huge + `"}`, 400, "too large"},
		{"DELETE", "/v1/ports/1", "", 400, "no such published port"},
		{"DELETE", "/v1/ports/one", "", 400, "bad id one"},
		{"DELETE", "/v1/ports/99999999999999999999", "", 400, "bad id"},
		{"DELETE", "/v1/ports", "", 405, "use GET, HEAD, POST"},
		{"PUT", "/v1/ports", "{}", 405, "PUT: not a method of /v1/ports"},
		{"BREW", "/v1/info", "", 405, "BREW: not a method"},
		{"GET", "/v2/info", "", 404, "no such route: /v2/info"},
		{"GET", "/", "", 404, "no such route"},
		{"POST", "/v1/sbxnet/ports", `{"specs":["8080:70000"]}`, 400, "70000"},
		{"POST", "/v1/sbxnet/ports", `{"specs":["0:80"]}`, 400, "0:80"},
		{"POST", "/v1/sbxnet/ports", `{"specs":[]}`, 400, "no ports are named"},
		{"POST", "/v1/sbxnet/ports", `{"ids":[1]}`, 400, "name specs"},
		{"POST", "/v1/sbxnet/ports", `{"ports":[1]}`, 400, "unknown field"},
		{"POST", "/v1/sbxnet/ports", `{"specs":["80"]}{}`, 400, "more than one"},
		{"POST", "/v1/sbxnet/ports", `{"specs":["` + huge + `"]}`, 400, "too large"},
		{"POST", "/v1/sbxnet/ports", `{"specs":[` + strings.Repeat(`"80",`, 1024) + `"81"]}`, 400, "more than 1024"},
		{"POST", "/v1/sbxnet/ports", fmt.Sprintf(`{"specs":["127.0.0.1:%d:80","127.0.0.1:%d:81"]}`, free, taken), 400, "in use"},
		{"POST", "/v1/sbxnet/ports", fmt.Sprintf(`{"specs":["%d:80","127.0.0.1:%[1]d:81"]}`, free), 400, "already taken"},
		{"DELETE", "/v1/sbxnet/ports", `{"specs":["80"]}`, 400, "80: no such published port"},
		{"GET", "/v1/sbxnet/inspect", "", 404, "no such route"},
		{"POST", "/v1/sbxnet/stop", "{}", 404, "no such route"},
	} {
		status, body := a.ask(c.method, c.path, c.body)
		var said struct{ Message string }
		if err := json.Unmarshal([]byte(body), &said); err != nil {
			t.Errorf("%s %s %.60s: %q is not JSON: %v", c.method, c.path, c.body, body, err)
		}
		if status != c.status || !strings.Contains(said.Message, c.message) {
			t.Errorf("%s %s %.60s: %d %.200q, want %d %q", c.method, c.path, c.body, status, said.Message, c.status, c.message)
		}
		if list := ports.List(); len(list) != 0 {
			t.Fatalf("%s %s %.60s published %+v", c.method, c.path, c.body, list)
		}
	}
	if !canBind(free) {
		t.Error("the free port is still held")
	}
}

func TestAddingThroughTheAPIIsIdempotent(t *testing.T) {
	a := serve(t, realPorts(t), nil)
	body := fmt.Sprintf(`{"proto":"tcp","parentIP":"127.0.0.1","parentPort":%d,"childPort":80}`, freePort(t))
	status1, first := a.ask("POST", "/v1/ports", body)
	status2, second := a.ask("POST", "/v1/ports", body)
	if status1 != 201 || status2 != 201 || first != second || !strings.HasPrefix(first, `{"id":1,`) {
		t.Errorf("%d %s, then %d %s", status1, first, status2, second)
	}
	// Where a spec leads is part of it.
	other := strings.Replace(body, `"childPort":80`, `"childPort":81`, 1)
	if status, said := a.ask("POST", "/v1/ports", other); status != 400 || !strings.Contains(said, "remove port 1 first") {
		t.Errorf("%d %s", status, said)
	}
}

// Without a parentIP it is every address of the families that proto names, which
// is one entry all the same.
func TestAPortWithoutParentIPIsOpenToAll(t *testing.T) {
	ports := realPorts(t)
	a := serve(t, ports, nil)
	for proto, want := range map[string]string{
		"tcp": "[0.0.0.0 ::]", "tcp4": "[0.0.0.0]", "tcp6": "[::]",
		"udp": "[0.0.0.0 ::]", "udp4": "[0.0.0.0]", "udp6": "[::]",
	} {
		if !hasIPv6() && strings.Contains(want, "::") {
			continue // this kernel was built without
		}
		status, body := a.ask("POST", "/v1/ports", fmt.Sprintf(`{"proto":%q,"parentPort":%d,"childPort":80}`, proto, freePort(t)))
		list := ports.List()
		if status != 201 || len(list) != 1 {
			t.Errorf("%s: %d %s, %+v", proto, status, body, list)
			continue
		}
		hosts := []string{}
		for _, b := range list[0].Bound {
			hosts = append(hosts, b.Host.Addr().String())
		}
		if fmt.Sprint(hosts) != want {
			t.Errorf("%s: %v, want %s", proto, hosts, want)
		}
		if status, body := a.ask("DELETE", fmt.Sprintf("/v1/ports/%d", list[0].ID), ""); status != 200 || body != "" {
			t.Errorf("%s: %d %s", proto, status, body)
		}
	}
}

// The sandbox's own addresses, its loopback and none at all all mean its server,
// wherever that listens; another address means that one.
func TestChildIP(t *testing.T) {
	ports := realPorts(t)
	a := serve(t, ports, nil)
	for child, want := range map[string]string{
		"": "invalid IP", "127.0.0.1": "invalid IP", "::1": "invalid IP", "10.0.2.100": "invalid IP", "fd00::100": "invalid IP",
		"::ffff:10.0.2.100": "invalid IP", "172.17.0.2": "172.17.0.2",
	} {
		a.ask("POST", "/v1/ports", fmt.Sprintf(`{"proto":"tcp4","parentIP":"127.0.0.1","parentPort":%d,"childPort":80,"childIP":%q}`, freePort(t), child))
		list := ports.List()
		if len(list) != 1 {
			t.Fatalf("%q: %+v", child, list)
		}
		if got := list[0].Specs[0].Child.String(); got != want {
			t.Errorf("%q leads to %s, want %s", child, got, want)
		}
		if err := ports.Remove(list[0].ID); err != nil {
			t.Fatal(err)
		}
	}
}

// What -p or `sbxnet port` published is seen, and removed, by RootlessKit's
// clients, and the other way round.
func TestBothAPIsSeeTheSamePorts(t *testing.T) {
	a := serve(t, realPorts(t), nil)
	native, kits := freePort(t), freePort(t)
	status, body := a.ask("POST", "/v1/sbxnet/ports", fmt.Sprintf(`{"specs":["127.0.0.1:%d:80"]}`, native))
	if want := fmt.Sprintf(`[{"id":1,"specs":["127.0.0.1:%d:80"],"listening":[{"protocol":"tcp","host":"127.0.0.1:%[1]d","port":80}]}]`, native); status != 201 || body != want {
		t.Errorf("%d %s, want %s", status, body, want)
	}
	a.ask("POST", "/v1/ports", fmt.Sprintf(`{"proto":"udp","parentIP":"127.0.0.1","parentPort":%d,"childPort":53}`, kits))
	if _, body := a.ask("GET", "/v1/ports", ""); body != fmt.Sprintf(`[{"id":1,"spec":{"proto":"tcp","parentIP":"127.0.0.1","parentPort":%d,"childPort":80}},`+
		`{"id":2,"spec":{"proto":"udp","parentIP":"127.0.0.1","parentPort":%d,"childPort":53}}]`, native, kits) {
		t.Error(body)
	}
	if status, body := a.ask("DELETE", "/v1/ports/1", ""); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if status, body := a.ask("DELETE", "/v1/sbxnet/ports", fmt.Sprintf(`{"specs":["127.0.0.1:%d:53/udp"]}`, kits)); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	for _, route := range []string{"/v1/ports", "/v1/sbxnet/ports"} {
		if _, body := a.ask("GET", route, ""); body != "[]" {
			t.Errorf("%s: %s", route, body)
		}
	}
}

func TestClientsAtOnce(t *testing.T) {
	ports := realPorts(t)
	a := serve(t, ports, nil)
	var free []int // chosen before any is bound
	for range 8 {
		free = append(free, freePort(t))
	}
	var wg sync.WaitGroup
	for g, hostPort := range free {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := Open("web")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range 10 {
				added, err := c.AddPorts([]string{fmt.Sprintf("127.0.0.1:%d:%d", hostPort, 1000+g)})
				if err != nil {
					t.Errorf("add: %v", err)
					return
				}
				if _, err := c.Ports(); err != nil {
					t.Errorf("list: %v", err)
				}
				if err := c.RemovePorts(nil, []int{added[0].ID}); err != nil {
					t.Errorf("remove: %v", err)
				}
				if !canBind(hostPort) {
					t.Errorf("%d is not free after the answer", hostPort)
				}
			}
		}()
	}
	wg.Wait()
	if list := ports.List(); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
	if _, body := a.ask("GET", "/v1/ports", ""); body != "[]" {
		t.Error(body)
	}
}

// A sandbox without a network has its API; the ports are what it refuses.
func TestPortsOfASandboxWithoutANetwork(t *testing.T) {
	ports := network.NoPorts("--network none: nothing can lead in")
	a := serve(t, ports, nil)
	for _, request := range [][2]string{
		{"/v1/ports", `{"proto":"tcp","parentPort":8080,"childPort":80}`},
		{"/v1/sbxnet/ports", `{"specs":["8080:80"]}`},
	} {
		if status, body := a.ask("POST", request[0], request[1]); status != 400 || !strings.Contains(body, "--network none: nothing can lead in") {
			t.Errorf("%d %s", status, body)
		}
	}
	if status, body := a.ask("GET", "/v1/ports", ""); status != 200 || body != "[]" {
		t.Errorf("%d %s", status, body)
	}
	if status, body := a.ask("GET", "/v1/info", ""); status != 200 || !strings.Contains(body, `"networkDriver":{`) || !strings.Contains(body, `"protos":[]`) {
		t.Errorf("%d %s", status, body)
	}
}

func TestOurRoutes(t *testing.T) {
	stopped := make(chan time.Duration, 1)
	a := serve(t, realPorts(t), func(sb *Sandbox) {
		sb.Inspect = func() any { return map[string]string{"name": "web"} }
		sb.Stats = func() any { return map[string]int{"open": 3} }
		sb.Stop = func(grace time.Duration) { stopped <- grace }
	})
	c, err := Open("web")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.PID != os.Getpid() {
		t.Errorf("the server's PID is %d, not %d", c.PID, os.Getpid())
	}
	if pid, err := c.ChildPID(); err != nil || pid != 4711 {
		t.Errorf("%d, %v", pid, err)
	}
	var inspected struct{ Name string }
	var stats struct{ Open int }
	if err := c.Inspect(&inspected); err != nil || inspected.Name != "web" {
		t.Errorf("%+v, %v", inspected, err)
	}
	if err := c.Stats(&stats); err != nil || stats.Open != 3 {
		t.Errorf("%+v, %v", stats, err)
	}
	for _, body := range []string{`{"grace":-1}`, `{"grace":1e9}`, `{"now":true}`, ``} {
		if status, said := a.ask("POST", "/v1/sbxnet/stop", body); status != 400 {
			t.Errorf("stop %s: %d %s", body, status, said)
		}
	}
	if status, said := a.ask("POST", "/v1/sbxnet/stop", `{"grace":0.5}`); status != 202 || <-stopped != 500*time.Millisecond {
		t.Errorf("%d %s", status, said)
	}
}

// Who asks for the end gets an answer, all of it, however soon the end comes.
func TestStopIsAnsweredBeforeTheServerEnds(t *testing.T) {
	var a *wire
	a = serve(t, realPorts(t), func(sb *Sandbox) {
		sb.Stop = func(time.Duration) { a.server.Close() }
	})
	if status, said := a.ask("POST", "/v1/sbxnet/stop", `{"grace":1}`); status != 202 || said != "{}" {
		t.Errorf("%d %s", status, said)
	}
}

// The lock's name goes first; what comes after is waited for.
func TestStopReturnsWhenAllIsRemoved(t *testing.T) {
	runtimeDir(t)
	dir, err := Create("web")
	if err != nil {
		t.Fatal(err)
	}
	var removed atomic.Bool
	ended := make(chan error, 1)
	end := func() {
		os.Remove(dir.File(fileLock))
		time.Sleep(100 * time.Millisecond) // as a busy machine takes
		removed.Store(true)
		ended <- dir.Close()
	}
	server, err := Serve(Sandbox{Dir: dir, ChildPID: os.Getpid(), Ports: realPorts(t), Stop: func(time.Duration) { go end() }})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := Open("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(time.Second); err != nil || !removed.Load() {
		t.Errorf("stopped: %v, with all removed: %v", err, removed.Load())
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// More clients than there is room for wait, and none is lost.
func TestManyConnections(t *testing.T) {
	a := serve(t, realPorts(t), nil)
	var idle []net.Conn
	for range maxConnections {
		c, err := net.Dial("unix", a.dir.File(fileSocket))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	answer := make(chan int, 1)
	go func() {
		status, _ := a.ask("GET", "/v1/info", "")
		answer <- status
	}()
	idle[0].Close()
	select {
	case status := <-answer:
		if status != 200 {
			t.Error(status)
		}
	case <-time.After(10 * time.Second):
		t.Error("no answer, though there is room again")
	}
}

// Whatever is thrown at the socket, the next client is answered.
func TestGarbageOnTheSocket(t *testing.T) {
	a := serve(t, realPorts(t), nil)
	for _, c := range []struct{ said, want string }{
		{"GET /v1/info HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "HTTP/1.1 431 "},
		{"\x00\x01\x02\r\n\r\n", "HTTP/1.1 400 "},
		{"GET / HTTP/9.9\r\n\r\n", "HTTP/1.1 505 "},
		{"POST /v1/ports HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400 "},
		{"POST /v1/ports HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400 "},
	} {
		conn, err := net.Dial("unix", a.dir.File(fileSocket))
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		go conn.Write([]byte(c.said)) // which the server need not read to the end
		answer := make([]byte, len(c.want))
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != c.want {
			t.Errorf("%.40q: %q, %v", c.said, answer, err)
		}
		conn.Close()
	}
	if status, _ := a.ask("GET", "/v1/info", ""); status != 200 {
		t.Error(status)
	}
}
