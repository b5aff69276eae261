package network

import (
	"errors"
	"fmt"
	"os"

	"sbxnet/cmd/sbxnet/console"
	"sbxnet/tapdev"
	"sbxnet/tapdev/impair"
	"sbxnet/tapdev/pcap"
)

// openLink takes over the sandbox's link and puts what impairs and watches it
// around it. Watched is our end: what the sandbox sent and was not lost, and what
// we send, lost or not.
func (n *Network) openLink() (link tapdev.Link, err error) {
	cfg := &n.cfg
	if link, err = tapdev.Attach(cfg.Info, cfg.Files); err != nil {
		return nil, fmt.Errorf("attach to the sandbox's link: %w", err)
	}
	n.onClose(func() error {
		if n.linkUsed {
			return nil
		}
		return link.Close() // whatever is around it then
	})
	tapdev.SetLogger(link, cfg.Log)
	for _, note := range cfg.Info.Notes {
		cfg.Log.Info(note)
	}
	cfg.Log.Debug("link", "kind", cfg.Info.Kind, "virtio_header", cfg.Info.VnetHeader, "queues", cfg.Info.Queues, "mtu", cfg.Info.MTU)
	impaired, err := impair.Wrap(link, cfg.Impair)
	if err != nil {
		return link, fmt.Errorf("--impair %v: %w", cfg.Impair, err)
	}
	link = impaired
	if cfg.LogPackets {
		link = pcap.LogPackets(link, cfg.PacketLog)
	}
	if cfg.PCAP == "" {
		return link, nil
	}
	captured, err := n.capture(link)
	if err != nil {
		return link, err
	}
	link = captured
	return link, nil
}

// capture makes the file of --pcap and writes what passes link to it. Other
// users do not get to read it.
func (n *Network) capture(link tapdev.Link) (tapdev.Link, error) {
	name := n.cfg.PCAP
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--pcap %s: %w; name a file that can be written", console.Shown(name), errors.Unwrap(err))
	}
	captured, err := pcap.Capture(link, file, pcap.Options{Interface: n.cfg.Info.Name, Logger: n.cfg.Log})
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("--pcap %s: %w", console.Shown(name), err)
	}
	return captured, nil
}
