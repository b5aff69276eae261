package state

import (
	"net"
	"net/http"
	"sync"
	"time"

	"sbxnet/tapdev/stackroom"
)

// patience closes connections of clients that take too long. It looks at all of them
// from time to time while there are any. http.Server's own time limits are deadlines
// of each connection: a timer that was stopped on another processor stays with the
// runtime, and wakes a process that has been idle since when it would have been due,
// up to two minutes later.
type patience struct {
	header, request, idle time.Duration
	look                  time.Duration // how often

	mu    sync.Mutex
	until map[net.Conn]time.Time
	looks bool // somebody does
}

func defaultPatience() *patience {
	return &patience{header: headerTime, request: requestTime, idle: idleTime, look: time.Second}
}

// state is for http.Server.ConnState.
func (p *patience) state(c net.Conn, s http.ConnState) {
	var most time.Duration
	switch s {
	case http.StateNew:
		most = p.header
	case http.StateActive:
		most = p.request
	case http.StateIdle:
		most = p.idle
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if most == 0 { // closed, or somebody else's
		delete(p.until, c)
		return
	}
	if p.until == nil {
		p.until = make(map[net.Conn]time.Time)
	}
	p.until[c] = time.Now().Add(most)
	if !p.looks {
		p.looks = true
		go func() {
			stackroom.Take()
			for p.closeLate() {
				time.Sleep(p.look)
			}
		}()
	}
}

// closeLate closes the connections whose time is over, and reports whether there are
// any left to look at.
func (p *patience) closeLate() (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for c, until := range p.until {
		if now.After(until) {
			c.Close()
			delete(p.until, c)
		}
	}
	p.looks = len(p.until) > 0
	return p.looks
}
