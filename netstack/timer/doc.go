// Package timer is the stack's time: instants that the caller passes in, and a
// queue of deadlines. Nothing here reads a clock or waits.
package timer
