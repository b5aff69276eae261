// Package reactor is the waiting half of a shard: one epoll set, its table of
// handlers, and a door through which other goroutines hand work in.
//
// A [Loop] belongs to one goroutine, which calls Wait and then Dispatch, turn
// after turn, and does everything else a shard does in between. Only [Loop.Post]
// and [Loop.Wake] may be called from elsewhere.
//
// Descriptors are registered once and for good. Host sockets are registered
// edge-triggered for everything at once, so that a flow never calls epoll_ctl
// again: its handler notes what the kernel said and moves data until EAGAIN.
// The link queue, which several readers may leave unfinished, is registered
// level-triggered.
//
// An event carries the index and the generation of a slot in the handler table,
// not a descriptor and not a pointer. A slot's generation changes when it is
// let go of, so an event that was already on its way when its descriptor was
// closed finds nobody, even if the number of the descriptor or the slot has
// been given to someone else in the same turn.
//
// The loop sleeps in epoll_pwait. A deadline is a timerfd in the same set, which
// is set anew only for an earlier one: a deadline that has moved away costs one
// wake-up when the old one comes, and nothing in the waits until then. Without a
// deadline the loop never wakes by itself. While events follow each other within
// microseconds it looks for the next one a while before it sleeps. Waiting enters the kernel the way that
// tells the Go scheduler; a poll that cannot block does not.
package reactor
