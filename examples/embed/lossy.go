package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"

	"sbxnet/netstack/frame"
	"sbxnet/netstack/socket"
	"sbxnet/tapdev"
)

// lossyLink is a cable with a bad contact: one in every so many frames that its
// machine sends is gone. Whatever has these four methods is a link to
// socket.Start; Channel has all of them, and one is replaced.
type lossyLink struct {
	*tapdev.Channel
	oneIn int
	rand  *rand.Rand

	lost atomic.Int64
}

func (l *lossyLink) Write(out []frame.Frame) error {
	for i := range out {
		if l.rand.IntN(l.oneIn) == 0 {
			l.lost.Add(1)
			continue
		}
		if err := l.Channel.Write(out[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// lossy downloads a megabyte over a link that loses one frame in fifty each way.
func lossy(out io.Writer) error {
	// Without super-segments a frame is a packet, as on a wire.
	a, b := tapdev.NewChannel(mtu, tapdev.WithoutSegmentation())
	defer a.Close()
	left := &lossyLink{Channel: a, oneIn: 50, rand: rand.New(rand.NewPCG(1, 1))}
	right := &lossyLink{Channel: b, oneIn: 50, rand: rand.New(rand.NewPCG(2, 2))}
	server, err := machine(left, 1, "192.0.2.1/24")
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := machine(right, 2, "192.0.2.2/24")
	if err != nil {
		return err
	}
	defer client.Close()

	file := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(file)
	body, err := download(server, client, file)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, file) {
		return fmt.Errorf("got %d bytes that are not the %d sent", len(body), len(file))
	}
	stats, err := server.Stats()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d bytes arrived intact over a link that lost %d frames: %d were sent again.\n",
		len(body), left.lost.Load()+right.lost.Load(), stats.TCP.Retransmits)
	return nil
}

// download has the server offer the file and the client fetch it.
func download(server, client *socket.Net, file []byte) ([]byte, error) {
	l, err := server.Listen("tcp", ":80")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(file) })}
	go web.Serve(l)
	defer web.Close()
	browser := &http.Client{Transport: &http.Transport{DialContext: client.DialContext}}
	defer browser.CloseIdleConnections()
	return fetch(browser, "http://192.0.2.1/")
}
