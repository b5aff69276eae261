package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/cmd/sbxnet/state"
	"sbxnet/portfwd"
)

// An inspection is what a sandbox says of itself, as `sbxnet inspect` prints it.
// Its fields are an interface: they may become more, and stay what they are.
type inspection struct {
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	StateDir string    `json:"stateDir"`
	Started  time.Time `json:"started"`
	// PID is sbxnet's, ChildPID the sandbox's first process, CommandPID the
	// command; 0: not there.
	PID        int      `json:"pid"`
	ChildPID   int      `json:"childPID"`
	CommandPID int      `json:"commandPID,omitempty"`
	Command    []string `json:"command"`
	// Target is what attach was given.
	Target string `json:"target,omitempty"`
	// Network is sandbox, none, host or attached.
	Network string            `json:"network"`
	IPv4    *inspectedAddress `json:"ipv4,omitempty"`
	IPv6    *inspectedAddress `json:"ipv6,omitempty"`
	Link    *inspectedLink    `json:"link,omitempty"`
	Ports   []state.Port      `json:"ports"`
}

type inspectedAddress struct {
	// Address of the sandbox with the length of its prefix.
	Address string `json:"address"`
	Gateway string `json:"gateway,omitempty"`
	DNS     string `json:"dns,omitempty"`
}

type inspectedLink struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	MTU    int    `json:"mtu"`
	Queues int    `json:"queues"`
	// KernelTSO and KernelUSO: the sandbox's kernel cuts large segments.
	KernelTSO bool `json:"kernelTSO"`
	KernelUSO bool `json:"kernelUSO"`
}

// describe fills in what is known of a network.
func (i *inspection) describe(n *network.Network, plan network.Plan, dns network.DNS) {
	i.IPv4, i.IPv6 = inspectedFamily(plan.V4, dns), inspectedFamily(plan.V6, dns)
	info := n.Link()
	i.Link = &inspectedLink{
		Name: info.Name, Kind: string(info.Kind), MTU: info.MTU, Queues: info.Queues,
		KernelTSO: info.KernelTSO, KernelUSO: info.KernelUSO,
	}
	for _, e := range n.Ports().List() {
		i.Ports = append(i.Ports, state.PortOf(e))
	}
}

func inspectedFamily(f network.Family, dns network.DNS) *inspectedAddress {
	if !f.On() {
		return nil
	}
	a := &inspectedAddress{Address: prefixOf(f).String()}
	if f.Gateway.IsValid() {
		a.Gateway = f.Gateway.String()
	}
	if !dns.None && f.DNS.IsValid() {
		a.DNS = f.DNS.String()
	}
	return a
}

// statsOf is the counters with names as JSON has them: tcp.toHost, not
// TCP.ToHost.
func statsOf(s portfwd.Stats) any {
	text, err := json.Marshal(s)
	if err != nil {
		return nil
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // a counter may be too large for a float64
	if d.Decode(&tree) != nil {
		return nil
	}
	return renamed(tree)
}

func renamed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, value := range v {
			out[lowerFirst(name)] = renamed(value)
		}
		return out
	case []any:
		for i := range v {
			v[i] = renamed(v[i])
		}
	}
	return v
}

// lowerFirst turns the first word of a Go name to lower case: TCP to tcp,
// TCPFlows to tcpFlows, ToHost to toHost.
func lowerFirst(name string) string {
	runes := []rune(name)
	n := 0
	for n < len(runes) && unicode.IsUpper(runes[n]) {
		n++
	}
	if n > 1 && n < len(runes) && unicode.IsLower(runes[n]) {
		n-- // the last capital begins the next word
	}
	return strings.ToLower(string(runes[:n])) + string(runes[n:])
}
