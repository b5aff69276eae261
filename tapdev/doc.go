// Package tapdev is the links between a sandbox and the stack outside it: how
// Ethernet frames leave and enter the sandbox's network namespace.
//
// # Kinds of link
//
// A TAP device with virtio headers is the usual one. Where /dev/net/tun cannot
// be opened, a veth pair does the same job: the sandbox has one end, and on the
// other, in a network namespace with nothing else in it, an AF_PACKET socket
// takes and sends frames. A [Channel] joins two stacks in memory. Package pcap
// has wrappers that watch a link, package impair one that makes it a bad network.
//
// [Open] runs inside the sandbox's network namespace, where the device belongs,
// and returns descriptors; [Attach] turns them into a [Link] in the process
// that runs the stack. Descriptors keep working across namespaces, so nothing
// of ours has to enter the sandbox once they are handed over. What Open
// achieved crosses as [Info].
//
// # The way of a frame
//
// Each [Queue] belongs to one goroutine, which waits for its descriptor in an
// epoll set of its own. Read takes frames with one read(2) each, straight into
// a ring of buffers, the virtio header in front. Write hands the kernel virtio
// header, protocol headers and payload with one writev(2) each, from where they
// lie. Neither allocates, locks, or goes through the runtime's poller.
//
// # Who does the work
//
// A frame says in its [frame.Offload] what is still to be done. In Write, each
// frame takes the first of these ways that is open:
//
//   - the kernel does it (virtio header with GSO and checksum);
//   - the link cuts it (package gso) and the kernel adds checksums;
//   - the link cuts it and adds checksums.
//
// The options decide where to begin, and the kernel may push a link further
// down: when it answers EINVAL to a kind of frame, the link logs that once,
// does this frame and all later ones of the kind itself, and never asks again.
// No frame is lost to that.
//
// Turning one thing off can turn off another, as it does in the kernel:
// without RXChecksum the sandbox's kernel cuts its own segments (TSO needs
// checksum offload), and without TXChecksum the link cuts ours, as each segment
// needs a checksum of its own. With GSO and both checksums off, on TAP, no
// virtio header is used at all and the device is opened by songgao/water.
//
// # What it never does
//
// It keeps no frame after Write (save for the copies of a full "fifo"), looks
// no deeper than the transport header, and never trusts a length that the
// sandbox's kernel wrote: virtio headers are checked against the frame.
package tapdev
