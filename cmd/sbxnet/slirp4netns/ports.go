package slirp4netns

import (
	"fmt"

	"sbxnet/cmd/sbxnet/network"
	"sbxnet/portfwd/spec"
)

// published is a running network's set of ports in the API's terms.
type published struct{ ports *network.Ports }

// Add publishes f. What is published already is an error, unlike in the set
// itself: to the caller it is a port that is taken.
func (p published) Add(f hostfwd) (int, error) {
	s := f.spec()
	if e, err := p.ports.Find(s); err == nil {
		return 0, fmt.Errorf("publish %s: already published, as id %d", s, e.ID)
	}
	e, err := p.ports.AddTogether(s)
	return e.ID, err
}

// Remove frees the port of an ID.
func (p published) Remove(id int) error { return p.ports.Remove(id) }

// List is in the order of IDs.
func (p published) List() []hostfwd {
	entries := p.ports.List()
	list := make([]hostfwd, 0, len(entries))
	for _, e := range entries {
		for _, s := range e.Specs {
			list = append(list, hostfwd{
				ID: e.ID, Proto: s.Protocol,
				HostAddr: s.HostIP, HostPort: s.HostPort, GuestAddr: s.Child, GuestPort: s.Port,
			})
		}
	}
	return list
}

func (f hostfwd) spec() spec.Spec {
	return spec.Spec{
		Protocol: f.Proto, HostIP: f.HostAddr, HostPort: f.HostPort,
		Port: f.GuestPort, Count: 1, Child: f.GuestAddr,
	}
}
