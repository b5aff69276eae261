package socket

import (
	"os"
	"sync"
	"time"
)

// side is the waiting half of one direction of a socket: who waits, and until
// when. All of it is under the socket's lock.
type side struct {
	sync.Cond
	expired bool
	timer   *time.Timer
	setting int // counts calls of setDeadline, to know a stale timer by
}

func (s *side) init(mu *sync.Mutex) { s.L = mu }

// setDeadline makes waiting fail from t on; the zero time is never.
func (s *side) setDeadline(t time.Time) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.setting++
	s.expired = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		s.expired = true
		s.Broadcast()
		return
	}
	setting := s.setting
	s.timer = time.AfterFunc(left, func() {
		s.L.Lock()
		defer s.L.Unlock()
		if s.setting == setting {
			s.expired = true
			s.Broadcast()
		}
	})
}

// check is the deadline's error, if it has passed.
func (s *side) check() error {
	if s.expired {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// stop lets go of the timer of a socket that is closed, and wakes who waits.
func (s *side) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.setting++
	s.Broadcast()
}
