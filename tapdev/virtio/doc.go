// Package virtio translates between a frame's offload metadata and the virtio
// network header (struct virtio_net_hdr, linux/virtio_net.h) that TAP devices
// and AF_PACKET sockets put in front of every frame.
//
// Encode is for frames on their way into the kernel, which are our own; Parse
// is for what comes out of it, where the sandbox had a hand in, so everything
// that the header claims is checked against the frame and hdr_len is not
// believed at all.
package virtio
