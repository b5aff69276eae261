// Package frame is what travels between a link and the stack: one Ethernet
// frame with the offload work that is still to be done on it, and the batch
// that collects frames on their way out.
//
// A frame is never copied to be described. On input the bytes lie in the
// link's receive buffer and belong to the link again when the call returns.
// On output a frame is a short header, built in memory that the [Batch] owns,
// followed by at most two pieces of payload that stay where they are, usually
// a connection's send buffer. The pieces must stay untouched until the batch
// is flushed; whoever owns them must not reuse the memory before that.
//
// The package never computes a checksum and never cuts a segment: it only says
// that it has to be done. Links do it, in the kernel or in software.
package frame
