package tcp

import (
	"net/netip"
	"testing"
	"time"
)

func TestPeerClosesFirst(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	c := s.conn()
	s.one(s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 1, data: "bye"}), fACK, 1, 5, 0)
	if string(s.log.got) != "bye" || s.log.eof != 1 || c.State() != CloseWait {
		t.Fatalf("got %q, eof %d, %v", s.log.got, s.log.eof, c.State())
	}
	c.Write([]byte("last words"))
	c.Close()
	s.one(s.flush(), fACK|fPSH|fFIN, 1, 5, 10)
	if c.State() != LastAck {
		t.Fatalf("state %v", c.State())
	}
	s.exchange(seg{flags: fACK, seq: 5, ack: 12})
	if s.log.closed != 1 || s.log.err != nil || s.e.Stats().Connections != 0 {
		t.Fatalf("closed %d %v", s.log.closed, s.log.err)
	}
}

func TestSimultaneousClose(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	c := s.conn()
	c.CloseWrite()
	s.one(s.flush(), fACK|fFIN, 1, 1, 0)
	s.one(s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 1}), fACK, 2, 2, 0)
	if c.State() != Closing {
		t.Fatalf("state %v", c.State())
	}
	s.exchange(seg{flags: fACK, seq: 2, ack: 2})
	if c.State() != TimeWait || s.log.closed != 1 || s.log.err != nil {
		t.Fatalf("state %v, closed %d %v", c.State(), s.log.closed, s.log.err)
	}
}

func TestUnreadDataMeansReset(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.log.limit = 2
	s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "unread"})
	s.conn().Close()
	s.one(s.flush(), fRST|fACK, 1, 7, 0)
	if s.log.closed != 1 || s.log.err != ErrAborted {
		t.Fatalf("closed %d %v", s.log.closed, s.log.err)
	}
}

func TestDataAfterCloseMeansReset(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.conn().Close()
	s.one(s.flush(), fACK|fFIN, 1, 1, 0)
	s.one(s.exchange(seg{flags: fACK, seq: 1, ack: 2, data: "late"}), fRST|fACK, 2, 1, 0)
	if s.e.Stats().Drops.AfterClose != 1 {
		t.Error("not counted")
	}
}

func TestAbortResetsAndTellsAtFlush(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.conn().Abort()
	if s.log.closed != 0 {
		t.Fatal("handler called from within Abort")
	}
	s.one(s.flush(), fRST|fACK, 1, 1, 0)
	if s.log.closed != 1 || s.log.err != ErrAborted || s.e.Stats().Connections != 0 {
		t.Fatalf("closed %d %v", s.log.closed, s.log.err)
	}
	s.conn().Abort()
	s.none(s.flush())
	if s.log.closed != 1 {
		t.Fatal("told twice")
	}
}

func TestOrphanInFinWait2TimesOut(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.conn().Close()
	s.flush()
	s.exchange(seg{flags: fACK, seq: 1, ack: 2})
	if s.conn().State() != FinWait2 {
		t.Fatalf("state %v", s.conn().State())
	}
	s.after(finWait2Timeout + time.Second)
	if s.log.closed != 1 || s.e.Stats().Connections != 0 || s.timers.Len() != 0 {
		t.Fatalf("closed %d, %+v", s.log.closed, s.e.Stats())
	}
}

func TestHalfClosedConnectionStaysInFinWait2(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.conn().CloseWrite()
	s.flush()
	s.exchange(seg{flags: fACK, seq: 1, ack: 2})
	s.after(time.Hour)
	s.exchange(seg{flags: fACK, seq: 1, ack: 2, data: "still here"})
	if string(s.log.got) != "still here" {
		t.Fatalf("got %q in %v", s.log.got, s.conn().State())
	}
}

func TestEOFWaitsForBufferedData(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.log.limit = 1
	s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 1, data: "abc"})
	if s.log.eof != 0 {
		t.Fatal("EOF before the data was taken")
	}
	s.log.drain(s.conn(), 10)
	if s.log.eof != 0 {
		t.Fatal("EOF from within Consume")
	}
	s.flush()
	if s.log.eof != 1 || string(s.log.got) != "abc" {
		t.Fatalf("eof %d, got %q", s.log.eof, s.log.got)
	}
}

func TestTimeWaitKeepsUntakenDataForItsHandler(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.log.limit = 1
	c := s.conn()
	c.CloseWrite()
	s.flush()
	s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 2, data: "abc"})
	if c.State() != TimeWait || s.log.closed != 0 {
		t.Fatalf("%v, closed %d", c.State(), s.log.closed)
	}
	s.log.drain(c, 10)
	s.flush()
	if string(s.log.got) != "abc" || s.log.eof != 1 || s.log.closed != 1 {
		t.Fatalf("got %q, eof %d, closed %d", s.log.got, s.log.eof, s.log.closed)
	}
}

// timeWaiting is a script whose connection is in TIME-WAIT: both sides have
// sent 1 as their FIN's sequence number.
func timeWaiting(t *testing.T) *script {
	s := established(t, testConfig(), fullOptions())
	s.conn().CloseWrite()
	s.flush()
	s.one(s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 2}), fACK, 2, 2, 0)
	if s.conn().State() != TimeWait {
		t.Fatalf("state %v", s.conn().State())
	}
	return s
}

func TestTimeWaitAnswersRepeatedFIN(t *testing.T) {
	s := timeWaiting(t)
	s.after(50 * time.Second)
	s.one(s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 2}), fACK, 2, 2, 0)
	s.after(50 * time.Second)
	if s.e.Stats().TimeWait != 1 {
		t.Fatal("did not begin again")
	}
	s.after(11 * time.Second)
	if s.e.Stats().TimeWait != 0 {
		t.Fatal("does not end")
	}
}

func TestTimeWaitIsUnmovedByReset(t *testing.T) {
	s := timeWaiting(t)
	s.none(s.exchange(seg{flags: fRST, seq: 2}))
	if s.e.Stats().TimeWait != 1 {
		t.Fatal("assassinated (RFC 1337)")
	}
}

func TestTimeWaitReopensForNewerTimestamp(t *testing.T) {
	s := timeWaiting(t)
	opt := fullOptions()
	opt.TSVal = s.tsVal - 1
	s.tsVal--
	old := s.iss
	s.one(s.exchange(seg{flags: fSYN, seq: 500, opt: opt}), fACK, 2, 2, 0)
	opt.TSVal = s.tsVal + 10
	out := s.exchange(seg{flags: fSYN, seq: 500, opt: opt})
	s.one(out, fSYN|fACK, 0, 501, 0)
	if s.e.Stats().TimeWait != 0 || !old.Add(2).LessThan(s.iss) {
		t.Fatal("the new connection's ISN does not lie beyond the old one's numbers")
	}
}

func TestTimeWaitIsCapped(t *testing.T) {
	cfg := testConfig()
	cfg.Limits.TimeWait = 3
	s := established(t, cfg, mss(1460))
	for port := uint16(6000); port < 6010; port++ {
		s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
		s.exchange(seg{flags: fSYN, opt: mss(1460)})
		s.exchange(seg{flags: fACK, seq: 1, ack: 1})
		s.conn().CloseWrite()
		s.flush()
		s.exchange(seg{flags: fFIN | fACK, seq: 1, ack: 2})
	}
	if st := s.e.Stats(); st.TimeWait != 3 || st.TimeWaitEvicted != 7 {
		t.Fatalf("%d records, %d evicted, want 3 and 7", st.TimeWait, st.TimeWaitEvicted)
	}
	s.after(timeWaitTimeout + time.Second) // time that has run out evicts nobody
	if st := s.e.Stats(); st.TimeWait != 0 || st.TimeWaitEvicted != 7 {
		t.Fatalf("%d records, %d evicted, want 0 and 7", st.TimeWait, st.TimeWaitEvicted)
	}
}

func TestKeepAliveProbesAndGivesUp(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.conn().SetKeepAlive(time.Minute, 10*time.Second, 3)
	s.none(s.after(59 * time.Second))
	s.one(s.after(2*time.Second), fACK, 0, 1, 0)
	s.exchange(seg{flags: fACK, seq: 1, ack: 1}) // alive
	s.none(s.after(58 * time.Second))
	if n := len(s.after(22*time.Second + time.Second)); n != 3 {
		t.Fatalf("%d probes, want 3", n)
	}
	out := s.after(10 * time.Second)
	if len(out) != 1 || !out[0].flags.Has(fRST) || s.log.err != ErrTimeout {
		t.Fatalf("%v, %v", out, s.log.err)
	}
}

func TestHandlerMayAbortFromData(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.log.onData = func(c *Conn, p []byte) { c.Abort() }
	out := s.exchange(seg{flags: fACK | fFIN, seq: 1, ack: 1, data: "abc"})
	s.one(out, fRST|fACK, 1, 1, 0)
	if s.log.closed != 1 || s.log.eof != 0 {
		t.Fatalf("closed %d, eof %d", s.log.closed, s.log.eof)
	}
}

func TestHandlerMayCloseFromData(t *testing.T) {
	s := established(t, testConfig(), mss(1460))
	s.log.onData = func(c *Conn, p []byte) { c.Write([]byte("ok")); c.Close() }
	s.one(s.exchange(seg{flags: fACK, seq: 1, ack: 1, data: "abc"}), fACK|fPSH|fFIN, 1, 4, 2)
}
