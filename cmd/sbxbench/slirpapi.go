package main

import (
	"encoding/json"
	"fmt"
	"net"
)

// slirpForward asks a running slirp4netns to publish the worker's port, and
// returns where.
func slirpForward(socket string) (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		return "", fmt.Errorf("slirp4netns API: %w", err)
	}
	defer c.Close()
	request := map[string]any{
		"execute": "add_hostfwd",
		"arguments": map[string]any{
			"proto": "tcp", "host_addr": "127.0.0.1", "host_port": port,
			"guest_addr": sandboxAddr, "guest_port": workerPort,
		},
	}
	if err := json.NewEncoder(c).Encode(request); err != nil {
		return "", fmt.Errorf("slirp4netns API: %w", err)
	}
	c.(*net.UnixConn).CloseWrite()
	var answer struct {
		Error *struct{ Desc string }
	}
	if err := json.NewDecoder(c).Decode(&answer); err != nil {
		return "", fmt.Errorf("slirp4netns API: %w", err)
	}
	if answer.Error != nil {
		return "", fmt.Errorf("slirp4netns API: %s", answer.Error.Desc)
	}
	return at("127.0.0.1", port), nil
}
