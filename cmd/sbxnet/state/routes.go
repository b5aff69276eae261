package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
)

// Our routes.
const (
	routePorts   = "/v1/sbxnet/ports"
	routeInspect = "/v1/sbxnet/inspect"
	routeStats   = "/v1/sbxnet/stats"
	routeStop    = "/v1/sbxnet/stop"
)

// maxSpecs bounds the ports of one request.
const maxSpecs = 1024

// A Port is one entry of the sandbox's published ports.
type Port struct {
	ID int `json:"id"`
	// Specs are as -p takes them.
	Specs []string `json:"specs"`
	// Listening are the host's sockets.
	Listening []Listening `json:"listening"`
}

// Listening is one host socket, and where it leads.
type Listening struct {
	Protocol string `json:"protocol"`
	// Host is an address and port of the host.
	Host string `json:"host"`
	// Port in the sandbox, at Child if that is not empty.
	Port  uint16 `json:"port"`
	Child string `json:"child,omitempty"`
}

// String is the socket and where it leads: 127.0.0.1:8080->80/tcp.
func (l Listening) String() string {
	to := strconv.Itoa(int(l.Port))
	if l.Child != "" {
		to = net.JoinHostPort(l.Child, to)
	}
	return l.Host + "->" + to + "/" + l.Protocol
}

// PortOf describes an entry to the API's clients.
func PortOf(e network.Entry) Port {
	p := Port{ID: e.ID, Specs: []string{}, Listening: []Listening{}}
	for _, s := range e.Specs {
		p.Specs = append(p.Specs, s.String())
	}
	for _, b := range e.Bound {
		l := Listening{Protocol: string(b.Protocol), Host: b.Host.String(), Port: b.Port}
		if b.Child.IsValid() {
			l.Child = b.Child.String()
		}
		p.Listening = append(p.Listening, l)
	}
	return p
}

// portsOf describes a list, which is never null.
func portsOf(entries []network.Entry) []Port {
	list := make([]Port, len(entries))
	for i, e := range entries {
		list[i] = PortOf(e)
	}
	return list
}

// PortsRequest is the body of a change of ports. IDs can be removed only.
type PortsRequest struct {
	Specs []string `json:"specs,omitempty"`
	IDs   []int    `json:"ids,omitempty"`
}

// StopRequest is the body of stop.
type StopRequest struct {
	// Grace in seconds is what the command has to end by itself.
	Grace float64 `json:"grace"`
}

// maxGrace of StopRequest, in seconds.
const maxGrace = 3600

func addRoutes(mux *http.ServeMux, sb *Sandbox) {
	mux.HandleFunc("GET "+routePorts, func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, r, http.StatusOK, portsOf(sb.Ports.List()))
	})
	mux.HandleFunc("POST "+routePorts, sb.addPorts)
	mux.HandleFunc("DELETE "+routePorts, sb.removePorts)
	for route, get := range map[string]func() any{routeInspect: sb.Inspect, routeStats: sb.Stats} {
		if get != nil {
			mux.HandleFunc("GET "+route, func(w http.ResponseWriter, r *http.Request) {
				writeJSON(w, r, http.StatusOK, get())
			})
		}
	}
	if sb.Stop != nil {
		mux.HandleFunc("POST "+routeStop, sb.stop)
	}
}

// readBody reads one JSON value, which says nothing that v does not know.
func readBody(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if d.More() {
		return errors.New("read the request: more than one JSON value")
	}
	return nil
}

// readSpecs reads a request about ports.
func readSpecs(r *http.Request) (req PortsRequest, specs []spec.Spec, err error) {
	if err := readBody(r, &req); err != nil {
		return req, nil, err
	}
	if len(req.Specs)+len(req.IDs) == 0 {
		return req, nil, errors.New("no ports are named")
	}
	if len(req.Specs) > maxSpecs || len(req.IDs) > maxSpecs {
		return req, nil, fmt.Errorf("more than %d ports at once", maxSpecs)
	}
	for _, text := range req.Specs {
		s, err := spec.Parse(text)
		if err != nil {
			return req, nil, apiError(err)
		}
		specs = append(specs, s)
	}
	return req, specs, nil
}

func (sb *Sandbox) addPorts(w http.ResponseWriter, r *http.Request) {
	req, specs, err := readSpecs(r)
	if err == nil && len(req.IDs) > 0 {
		err = errors.New("ids: are given by the sandbox; name specs")
	}
	if err != nil {
		refuseRequest(w, r, err)
		return
	}
	entries, err := sb.Ports.Add(specs)
	if err != nil {
		refuseRequest(w, r, apiError(err))
		return
	}
	writeJSON(w, r, http.StatusCreated, portsOf(entries))
}

func (sb *Sandbox) removePorts(w http.ResponseWriter, r *http.Request) {
	req, specs, err := readSpecs(r)
	if err != nil {
		refuseRequest(w, r, err)
		return
	}
	ids := req.IDs
	for i, s := range specs {
		e, err := sb.Ports.Find(s)
		if err != nil {
			refuseRequest(w, r, fmt.Errorf("%s: %w", req.Specs[i], err))
			return
		}
		ids = append(ids, e.ID)
	}
	if err := sb.Ports.Remove(ids...); err != nil {
		refuseRequest(w, r, err)
		return
	}
	writeJSON(w, r, http.StatusOK, struct{}{})
}

func (sb *Sandbox) stop(w http.ResponseWriter, r *http.Request) {
	var req StopRequest
	err := readBody(r, &req)
	if err == nil && (req.Grace < 0 || req.Grace > maxGrace) {
		err = fmt.Errorf("grace %v: not a number of seconds from 0 to %d", req.Grace, maxGrace)
	}
	if err != nil {
		refuseRequest(w, r, err)
		return
	}
	writeJSON(w, r, http.StatusAccepted, struct{}{})
	if f, ok := w.(http.Flusher); ok {
		f.Flush() // before the sandbox's end closes the connection
	}
	sb.Stop(time.Duration(req.Grace * float64(time.Second)))
}
