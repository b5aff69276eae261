package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A TCP connection begins with nine bytes from its client: what it is for, and
// a parameter, big endian.
const (
	opUpload   = 'U' // the server discards, and answers EOF with the count of bytes
	opDownload = 'D' // the server sends for the parameter's nanoseconds, then closes
	opEcho     = 'E' // the server sends back what it reads
	opRequest  = 'Q' // the server answers one byte and closes
	opCount    = 'N' // the server answers the datagrams counted since the last time
	opHold     = 'H' // the server keeps the connection open and silent
	preamble   = 9
)

// A datagram's first byte says what the server does with it.
const (
	datagramEcho  = 'E'
	datagramCount = 'C'
)

// server is the far end of every load, over TCP and UDP on one port.
type server struct {
	tcp       net.Listener
	udp       *net.UDPConn
	datagrams atomic.Uint64
}

// serve listens on host, on any port for 0.
func serve(host string, port int) (*server, error) {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(host), Port: port})
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(host), Port: tcp.Addr().(*net.TCPAddr).Port})
	if err != nil {
		tcp.Close()
		return nil, err
	}
	udp.SetReadBuffer(4 << 20)
	s := &server{tcp: tcp, udp: udp}
	go s.accept()
	go s.receive()
	return s, nil
}

func (s *server) port() int { return s.tcp.Addr().(*net.TCPAddr).Port }

func (s *server) close() {
	s.tcp.Close()
	s.udp.Close()
}

func (s *server) accept() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		go s.answer(c.(*net.TCPConn))
	}
}

func (s *server) answer(c *net.TCPConn) {
	defer c.Close()
	var head [preamble]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	parameter := binary.BigEndian.Uint64(head[1:])
	buffer := make([]byte, bufferBytes)
	if head[0] == opRequest || head[0] == opEcho || head[0] == opHold {
		buffer = buffer[:16]
	}
	switch head[0] {
	case opUpload:
		n, _ := discard(c, buffer)
		c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	case opDownload:
		send(c, buffer, time.Duration(parameter))
	case opEcho:
		onCore(false, func() error {
			return block(c, func(b blockingConn) error { return echo(b, buffer) })
		})
	case opRequest:
		c.Write(buffer[:1])
	case opCount:
		c.Write(binary.BigEndian.AppendUint64(nil, s.datagrams.Swap(0)))
	case opHold:
		c.Read(buffer)
	}
}

func echo(c io.ReadWriter, buffer []byte) error {
	for {
		n, err := c.Read(buffer)
		if err != nil {
			return err
		}
		if _, err := c.Write(buffer[:n]); err != nil {
			return err
		}
	}
}

func (s *server) receive() {
	b := make([]byte, 65536)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(b)
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				continue
			}
			if isClosed(err) {
				return
			}
			continue
		}
		switch {
		case n == 0:
		case b[0] == datagramCount:
			s.datagrams.Add(1)
		case b[0] == datagramEcho:
			s.udp.WriteToUDPAddrPort(b[:n], from)
		}
	}
}
