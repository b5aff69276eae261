package slirp4netns

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"

	"sbxnet/portfwd/spec"
)

// The errors of requests. Callers compare the text.
var (
	errParse          = errors.New("cannot parse JSON")
	errTooLarge       = errors.New("too large message")
	errNoExecute      = errors.New("no execute found")
	errUnknownExecute = errors.New("unknown execute")
	errAddFailed      = errors.New("add_hostfwd: slirp_add_hostfwd failed")
	errRemoveFailed   = errors.New("remove_hostfwd: slirp_remove_hostfwd failed")
	errRemoveID       = errors.New("remove_hostfwd: bad arguments.id")

	errClosed = errors.New("the network is being taken down")
)

// A hostfwd is a port of the host's that leads to one in the namespace, in the
// API's terms.
type hostfwd struct {
	ID        int           `json:"id"`
	Proto     spec.Protocol `json:"proto"`
	HostAddr  netip.Addr    `json:"host_addr"`
	HostPort  uint16        `json:"host_port"`
	GuestAddr netip.Addr    `json:"guest_addr"`
	GuestPort uint16        `json:"guest_port"`
}

// hostfwds is the set of ports that requests change. Methods are called by one
// goroutine at a time.
type hostfwds interface {
	// Add publishes f, whose ID is not looked at, and returns its ID, at
	// least 1.
	Add(f hostfwd) (id int, err error)
	// Remove frees the port before it returns.
	Remove(id int) error
	List() []hostfwd
}

// fields are the members of a JSON object whose values are still to be looked
// at. A field that is null is one that is not there.
type fields map[string]json.RawMessage

func (f fields) has(name string) bool { return len(f[name]) > 0 && string(f[name]) != "null" }

// text returns a string field, "" for one that is not there.
func (f fields) text(name string) (s string, ok bool) {
	if !f.has(name) {
		return "", true
	}
	return s, json.Unmarshal(f[name], &s) == nil
}

// number returns a whole number of at least 1, which must be there.
func (f fields) number(name string, most int) (n int, ok bool) {
	if !f.has(name) || json.Unmarshal(f[name], &n) != nil {
		return 0, false
	}
	return n, n >= 1 && n <= most
}

// answer works one request and returns what to answer, as JSON. A request that
// fails has changed nothing.
func (a *api) answer(request []byte) []byte {
	reply, err := a.execute(request)
	if err != nil {
		return refusal(err)
	}
	return marshal(reply)
}

// refusal is the answer to a request that failed.
func refusal(err error) []byte {
	return marshal(map[string]any{"error": map[string]string{"desc": "bad request: " + err.Error()}})
}

func marshal(reply any) []byte {
	out, err := json.Marshal(reply)
	if err != nil { // of our own making: numbers, addresses and fixed strings
		panic(err)
	}
	return out
}

func (a *api) execute(request []byte) (any, error) {
	var f fields
	// What stands behind the object is ignored, as by the original.
	if json.NewDecoder(bytes.NewReader(request)).Decode(&f) != nil {
		return nil, errParse
	}
	verb, ok := f.text("execute")
	if !ok || verb == "" {
		return nil, errNoExecute
	}
	var arguments fields
	if f.has("arguments") && json.Unmarshal(f["arguments"], &arguments) != nil {
		arguments = nil // the verb says which one it misses
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errClosed
	}
	switch verb {
	case "add_hostfwd":
		return a.add(arguments)
	case "remove_hostfwd":
		return a.remove(arguments)
	case "list_hostfwd":
		return a.list(), nil
	}
	return nil, errUnknownExecute
}

func (a *api) add(arguments fields) (any, error) {
	f, err := a.readHostfwd(arguments)
	if err != nil {
		return nil, err
	}
	id, err := a.ports.Add(f)
	if err != nil {
		a.log.Warn("add_hostfwd: " + err.Error()) // the answer has no room for it
		return nil, errAddFailed
	}
	return map[string]any{"return": map[string]int{"id": id}}, nil
}

// readHostfwd checks the arguments of add_hostfwd in the original's order.
func (a *api) readHostfwd(arguments fields) (f hostfwd, err error) {
	bad := func(name string) error { return errors.New("add_hostfwd: bad arguments." + name) }
	proto, ok := arguments.text("proto")
	if f.Proto = spec.Protocol(proto); !ok || f.Proto != spec.TCP && f.Proto != spec.UDP {
		return f, bad("proto")
	}
	if f.HostAddr, ok = readAddr(arguments, "host_addr", netip.IPv4Unspecified()); !ok || !a.reaches(f.HostAddr) {
		return f, bad("host_addr")
	}
	const maxPort = 65535
	port, ok := arguments.number("host_port", maxPort)
	if f.HostPort = uint16(port); !ok {
		return f, bad("host_port")
	}
	guest := a.guest4
	if !f.HostAddr.Is4() {
		guest = a.guest6
	}
	if f.GuestAddr, ok = readAddr(arguments, "guest_addr", guest); !ok || f.GuestAddr.IsUnspecified() {
		return f, bad("guest_addr")
	}
	if f.GuestAddr.Is4() != f.HostAddr.Is4() {
		if f.GuestAddr != a.guest4 { // what a caller that knows no IPv6 fills in
			return f, bad("guest_addr")
		}
		f.GuestAddr = guest
	}
	port, ok = arguments.number("guest_port", maxPort)
	if f.GuestPort = uint16(port); !ok {
		return f, bad("guest_port")
	}
	return f, nil
}

// reaches reports whether clients of a host address can be led to the guest: an
// IPv6 one needs --enable-ipv6.
func (a *api) reaches(host netip.Addr) bool { return host.Is4() || a.guest6.IsValid() }

// readAddr returns an address field, standard for one that is not there or
// empty.
func readAddr(arguments fields, name string, standard netip.Addr) (netip.Addr, bool) {
	text, ok := arguments.text(name)
	if !ok || text == "" {
		return standard, ok
	}
	a, err := netip.ParseAddr(text)
	return a, err == nil && a.Zone() == "" && !a.Is4In6()
}

func (a *api) remove(arguments fields) (any, error) {
	const maxID = 1<<31 - 1
	id, ok := arguments.number("id", maxID)
	if !ok || !a.knows(id) {
		return nil, errRemoveID
	}
	if err := a.ports.Remove(id); err != nil {
		a.log.Warn("remove_hostfwd: " + err.Error())
		return nil, errRemoveFailed
	}
	return map[string]any{"return": struct{}{}}, nil
}

func (a *api) knows(id int) bool {
	for _, f := range a.ports.List() {
		if f.ID == id {
			return true
		}
	}
	return false
}

// list answers under both keys: "entries" is where the original's program puts
// them, "return" where its manual does.
func (a *api) list() any {
	type entries struct {
		Entries []hostfwd `json:"entries"`
	}
	all := entries{a.ports.List()}
	if all.Entries == nil {
		all.Entries = []hostfwd{}
	}
	return struct {
		Return entries `json:"return"`
		entries
	}{all, all}
}
