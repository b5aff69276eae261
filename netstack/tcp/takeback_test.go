package tcp

import (
	"testing"
	"time"
)

func TestConnectionTakenBackGoesOn(t *testing.T) {
	s := wellRead(t, sackMSS(1460))
	c := s.conn()
	c.HoldWindow(true)
	r, err := c.Release()
	if err != nil {
		t.Fatal(err)
	}
	s.none(s.exchange(seg{flags: fACK, seq: 11, ack: 11, data: "lost"}))
	s.none(s.after(time.Minute))
	s.e.TakeBack(c)
	s.one(s.flush(), fACK, 11, 11, 0)
	if c.State() != Established || s.e.Stats().Released != 0 || s.e.Stats().Connections != 1 {
		t.Errorf("%v, %+v", c.State(), s.e.Stats())
	}
	c.HoldWindow(false)
	s.flush()
	c.Write([]byte("on we go"))
	s.one(s.flush(), fACK|fPSH, 11, 11, 8)
	s.in(seg{flags: fACK, seq: 11, ack: 19, data: "lost"})
	s.flush()
	if got := string(s.log.got); got != "abcdefghijlost" {
		t.Errorf("the handler has %q", got)
	}
	if again, err := c.Release(); err != nil || again.ReceiveNext != r.ReceiveNext+4 || again.SendNext != r.SendNext+8 {
		t.Errorf("released again: %+v, %v, before %+v", again, err, r)
	}
}

func TestOnlyAReleasedConnectionIsTakenBack(t *testing.T) {
	s := wellRead(t, sackMSS(1460))
	c := s.conn()
	s.e.TakeBack(c)
	s.none(s.flush())
	r, err := c.Release()
	if err != nil {
		t.Fatal(err)
	}
	s.e.Forget(r.Local, r.Remote)
	s.e.TakeBack(c)
	s.none(s.flush())
	if n := s.e.Stats().Connections; n != 0 {
		t.Errorf("%d connections", n)
	}
}
