// Command embed uses the stack as a library: two stacks in one program, joined
// by a link in memory, talk HTTP and UDP with each other, and then HTTP again
// over a link that loses packets. It needs no privilege, no namespace and no
// device.
//
//	go run ./examples/embed
package main

import (
	"context"
	"fmt"
	"io"
	"log"
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

	if err := browse(out, server, client); err != nil {
		return err
	}
	if err := echo(out, server, client); err != nil {
		return err
	}
	sent := right.Stats()
	fmt.Fprintf(out, "%d frames crossed the link, and the operating system saw none.\n", sent.TxFrames+sent.RxFrames)
	return lossy(out)
}

// machine runs a stack on one end of the cable and returns its sockets.
func machine(cable socket.Link[tapdev.Received], number byte, addresses ...string) (*socket.Net, error) {
	cfg := netstack.Config{HardwareAddr: header.MAC{2, 0, 0, 0, 0, number}, MTU: mtu}
	for _, a := range addresses {
		cfg.Addresses = append(cfg.Addresses, netip.MustParsePrefix(a))
	}
	return socket.Start(context.Background(), cfg, cable)
}
