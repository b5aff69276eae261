// Package lab is where tests of the forwarder run: a network namespace that
// plays the host, and others that play sandboxes, with Linux's own TCP/IP in
// them. A test binary enters the host's namespace before its tests (Main); each
// test makes its sandboxes (NewThread, OpenLink).
package lab
