// Package pcap has links that watch another link: [Capture] writes every frame
// to a pcapng file for Wireshark, [LogPackets] prints a line for each.
//
// Both are for finding out what goes wrong, and cost a copy or more per frame;
// a link that is not wrapped costs nothing. They see frames as the stack does:
// super-segments in one piece, from before the link cuts them. Frames that were
// left without a checksum get one in the capture, so that Wireshark does not
// mark them as damaged; the frames themselves are passed on as they are.
//
// A frame towards the sandbox is "outbound", one from it "inbound". What the
// link drops later is in the capture all the same.
//
// Whatever happens to the file, traffic goes on: the first error is reported
// once, and nothing more is written.
package pcap
