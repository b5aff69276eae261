// Package tcp is the stack's TCP: connections, listeners, loss recovery,
// congestion control and every timer they need, as a state machine that is told
// the time and the segments and appends frames to a batch.
package tcp
