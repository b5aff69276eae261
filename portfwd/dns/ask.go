package dns

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

var errNotAnswer = errors.New("resolver answered something else")

// Answers may be as long as the client's EDNS size allows, but seldom are, so the
// buffers are shared.
var packetBuffers = sync.Pool{New: func() any { return new([maxMessage]byte) }}

// ask puts the query to one server from a socket of its own and waits for the
// answer until ctx ends. The answer carries the ID that was sent.
func (s *Server) ask(ctx context.Context, network string, to netip.AddrPort, query message) outcome {
	o := outcome{server: to}
	conn, err := s.dial(ctx, network, to.String())
	if err != nil {
		o.err = err
		return o
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	sent := query.withID(randomID())
	if network == "tcp" {
		o.answer, o.err = askStream(conn, sent)
	} else {
		o.answer, o.err = askPacket(conn, sent)
	}
	return o
}

// askPacket skips whatever is not the answer: it may be forged, and the answer
// yet to come. The socket is connected, so the kernel has checked the address.
func askPacket(conn net.Conn, query message) (message, error) {
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := packetBuffers.Get().(*[maxMessage]byte)
	defer packetBuffers.Put(buf)
	for {
		n, err := conn.Read(buf[:])
		if err != nil {
			return nil, err
		}
		if answer := message(buf[:n]); answer.answers(query) {
			return bytes.Clone(answer), nil
		}
	}
}

func askStream(conn net.Conn, query message) (message, error) {
	if err := writeFramed(conn, query); err != nil {
		return nil, err
	}
	answer, err := readFramed(conn)
	if err != nil {
		return nil, err
	}
	if !answer.answers(query) {
		return nil, errNotAnswer
	}
	return answer, nil
}

// readFramed reads a message with its length in front (RFC 1035 §4.2.2).
func readFramed(r io.Reader) (message, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(length[:])
	if n < headerLen {
		return nil, fmt.Errorf("message of %d bytes is shorter than its header", n)
	}
	m := make(message, n)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	return m, nil
}

// writeFramed writes length and message at once: some servers take a length
// that travels alone for the whole.
func writeFramed(w io.Writer, m message) error {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(m)), uint16(len(m)))
	_, err := w.Write(append(framed, m...))
	return err
}

func randomID() uint16 {
	var b [2]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint16(b[:])
}
