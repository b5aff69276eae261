package network

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"sbxnet/portfwd/spec"
)

// Ports is the set of ports that lead into one sandbox, however they came to be:
// by -p, the API, or the commands and protocols of other tools. Its methods may
// be called from any goroutine; each change is as a whole before or after any
// other.
type Ports struct {
	// refusal is why there can be no ports; nil if there can.
	refusal error
	mu      sync.Mutex
	to      Publisher
	lastID  int
	entries []Entry // by ID
}

// A Publisher accepts on the sockets of published ports: *portfwd.Forwarder.
type Publisher interface {
	// Publish takes the sockets over, also when it fails.
	Publish([]spec.Bound) error
	// Unpublish frees the host's ports before it returns.
	Unpublish([]spec.Bound) error
}

// An Entry is what was asked for at once and is removed at once.
type Entry struct {
	// ID is from 1, and of no later entry.
	ID int
	// Specs as they were asked for; more than one where it takes several to say
	// it, such as every address of both families.
	Specs []spec.Spec
	// Bound is what listens for it, with the ports that free ones became. The
	// descriptors are not the reader's.
	Bound []spec.Bound
}

// NewPorts is the set that begins with what is published already.
func NewPorts(to Publisher, published []spec.Bound) *Ports {
	p := &Ports{to: to}
	for i := range published {
		if i == 0 || published[i].Spec != published[i-1].Spec {
			p.enter([]spec.Spec{published[i].Spec})
		}
		last := &p.entries[len(p.entries)-1]
		last.Bound = append(last.Bound, described(published[i]))
	}
	return p
}

// NoPorts is the set of a sandbox that no port can lead into. Each attempt is
// answered with why, one line that says what to do instead.
func NoPorts(why string) *Ports { return &Ports{refusal: errors.New(why)} }

// Refusal is why no port can be published; nil if ports can.
func (p *Ports) Refusal() error { return p.refusal }

// described is a socket without the descriptor, which has another owner.
func described(b spec.Bound) spec.Bound {
	b.FD = -1
	return b
}

// Add publishes every spec, as an entry each, or none of them. A spec that is
// published already is not published again: its entry is in the result, in
// the spec's place.
func (p *Ports) Add(specs []spec.Spec) ([]Entry, error) {
	together := make([][]spec.Spec, len(specs))
	for i := range specs {
		together[i] = specs[i : i+1]
	}
	return p.add(together)
}

// AddTogether publishes all specs as one entry, or none of them, and returns the
// entry that is there already if it has the same specs.
func (p *Ports) AddTogether(specs ...spec.Spec) (Entry, error) {
	entries, err := p.add([][]spec.Spec{specs})
	if err != nil {
		return Entry{}, err
	}
	return entries[0], nil
}

func (p *Ports) add(wanted [][]spec.Spec) ([]Entry, error) {
	if p.refusal != nil {
		return nil, p.refusal
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := p.missing(wanted)
	if err := p.open(fresh); err != nil {
		return nil, err
	}
	out := make([]Entry, len(wanted))
	for i, specs := range wanted {
		out[i] = p.find(specs).clone()
	}
	return out, nil
}

// missing are those of wanted that have no entry, each once.
func (p *Ports) missing(wanted [][]spec.Spec) [][]spec.Spec {
	var fresh [][]spec.Spec
	for _, specs := range wanted {
		known := p.find(specs) != nil || slices.ContainsFunc(fresh, func(f []spec.Spec) bool { return slices.Equal(f, specs) })
		if !known {
			fresh = append(fresh, slices.Clone(specs))
		}
	}
	return fresh
}

// open binds and publishes new entries, all or none.
func (p *Ports) open(fresh [][]spec.Spec) error {
	all := slices.Concat(fresh...)
	if len(all) == 0 {
		return nil
	}
	if err := p.check(all); err != nil {
		return err
	}
	bound, err := spec.Bind(all)
	if err != nil {
		return err
	}
	described := describe(bound)
	if err := p.to.Publish(bound); err != nil {
		return fmt.Errorf("publish %v: %w", all[0], err)
	}
	for _, specs := range fresh {
		e := p.enter(specs)
		for _, b := range described {
			if slices.Contains(specs, b.Spec) {
				e.Bound = append(e.Bound, b)
			}
		}
	}
	return nil
}

// check refuses what would take a host port that is published already: the
// kernel would say so too, but not which entry has it.
func (p *Ports) check(all []spec.Spec) error {
	if err := spec.Check(all); err != nil {
		return err
	}
	for _, e := range p.entries {
		for _, s := range all {
			if err := spec.Check(append(slices.Clone(e.Specs), s)); err != nil {
				return fmt.Errorf("%w, or remove port %d first", err, e.ID)
			}
		}
	}
	return nil
}

func describe(bound []spec.Bound) []spec.Bound {
	out := make([]spec.Bound, len(bound))
	for i := range bound {
		out[i] = described(bound[i])
	}
	return out
}

func (p *Ports) enter(specs []spec.Spec) *Entry {
	p.lastID++
	p.entries = append(p.entries, Entry{ID: p.lastID, Specs: specs})
	return &p.entries[len(p.entries)-1]
}

func (p *Ports) find(specs []spec.Spec) *Entry {
	for i := range p.entries {
		if slices.Equal(p.entries[i].Specs, specs) {
			return &p.entries[i]
		}
	}
	return nil
}

func (e *Entry) clone() Entry {
	return Entry{ID: e.ID, Specs: slices.Clone(e.Specs), Bound: slices.Clone(e.Bound)}
}

// ErrUnknownPort is of an ID or spec that no entry has.
var ErrUnknownPort = errors.New("no such published port")

// Remove unpublishes the entries with these IDs, all of them or none. Their host
// ports are free when it returns; connections that are open go on.
func (p *Ports) Remove(ids ...int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var bound []spec.Bound
	for i, id := range ids {
		at := p.index(id)
		if at < 0 {
			return fmt.Errorf("port %d: %w", id, ErrUnknownPort)
		}
		if !slices.Contains(ids[:i], id) {
			bound = append(bound, p.entries[at].Bound...)
		}
	}
	if len(bound) > 0 {
		if err := p.to.Unpublish(bound); err != nil {
			return fmt.Errorf("unpublish: %w", err)
		}
	}
	p.entries = slices.DeleteFunc(p.entries, func(e Entry) bool { return slices.Contains(ids, e.ID) })
	return nil
}

func (p *Ports) index(id int) int {
	return slices.IndexFunc(p.entries, func(e Entry) bool { return e.ID == id })
}

// Find returns the entry of exactly these specs.
func (p *Ports) Find(specs ...spec.Spec) (Entry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.find(specs); e != nil {
		return e.clone(), nil
	}
	return Entry{}, ErrUnknownPort
}

// List returns the entries in the order of their IDs.
func (p *Ports) List() []Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Entry, len(p.entries))
	for i := range p.entries {
		out[i] = p.entries[i].clone()
	}
	return out
}
