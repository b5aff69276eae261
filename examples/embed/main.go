// Command embed uses the stack as a library: two stacks in one program, joined
// by a link in memory, talk HTTP with each other. It needs no privilege, no
// namespace and no device.
//
//	go run ./examples/embed
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"

	"sbxnet/netstack"
	"sbxnet/netstack/header"
	"sbxnet/netstack/socket"
	"sbxnet/tapdev"
)

const mtu = 1500

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer) error {
	// The two ends of a cable, and a machine on each.
	left, right := tapdev.NewChannel(mtu)
	defer left.Close()
	server, err := machine(left, 1, "192.0.2.1/24", "2001:db8::1/64")
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := machine(right, 2, "192.0.2.2/24", "2001:db8::2/64")
	if err != nil {
		return err
	}
	defer client.Close()

	// From here on it is the standard library: a net.Listener serves, and a
	// transport dials.
	l, err := server.Listen("tcp", ":80")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	web := &http.Server{Handler: http.HandlerFunc(hello)}
	go web.Serve(l)
	defer web.Close()
	browser := &http.Client{Transport: &http.Transport{DialContext: client.DialContext}}
	defer browser.CloseIdleConnections()
	for _, url := range []string{"http://192.0.2.1/", "http://[2001:db8::1]/"} {
		if err := fetch(out, browser, url); err != nil {
			return err
		}
	}
	sent := right.Stats()
	fmt.Fprintf(out, "%d frames crossed the link, and the operating system saw none.\n", sent.TxFrames+sent.RxFrames)
	return nil
}

// machine runs a stack on one end of the cable and returns its sockets.
func machine(cable *tapdev.Channel, number byte, addresses ...string) (*socket.Net, error) {
	cfg := netstack.Config{HardwareAddr: header.MAC{2, 0, 0, 0, 0, number}, MTU: mtu}
	for _, a := range addresses {
		cfg.Addresses = append(cfg.Addresses, netip.MustParsePrefix(a))
	}
	return socket.Start(context.Background(), cfg, cable)
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello, %s", r.RemoteAddr)
}

func fetch(out io.Writer, browser *http.Client, url string) error {
	resp, err := browser.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("read %s: %w", url, err)
	}
	fmt.Fprintf(out, "%s says: %s\n", url, body)
	return nil
}
