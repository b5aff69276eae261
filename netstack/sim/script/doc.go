// Package script plays the other side of a netstack.Stack from a text, in
// virtual time: it injects segments, makes socket calls and says what the stack
// must answer, and when. The notation leans on packetdrill's.
//
// # The language
//
// A script is lines; # begins a comment. Settings come first:
//
//	set mtu 1500               set receivebuffer 65536    set sendbuffer 65536
//	set congestion newreno     set timewait 100           set peerisn 1000
//	flow b 10.0.2.100:5001 10.0.2.2:80
//
// A flow is the peer's end and the stack's. There is one from the start, without
// a name, from 10.0.2.100:5000 to 10.0.2.2:80. Every other line is a step:
//
//	+0.040 @b VERB …
//
// +0.040 lets so many seconds pass since the last step; @b names the flow, if it
// is not the unnamed one. Whatever the stack sends must be expected: a segment
// that no step has asked for by the time of the next is an error, and so is one
// left at the end.
//
//	< S 0 win 65535 <mss 1460,sackOK,TS val 100 ecr 0,nop,wscale 7>
//	> S. 0 ack 1 <mss 1460,sackOK,TS ecr 100,nop,wscale 0>
//	< P. 1:101 ack 1 win 257
//	< icmp frag-needed mtu 68 seq 1
//	> icmp port-unreachable
//
// Flags are F S R P . U E W, or - for none; then the sequence number, and after a
// colon the end of the payload. Numbers count from the two initial ones. What
// an expectation does not mention is not compared, but flags, sequence numbers,
// the presence of an acknowledgement and payload always are. An expected segment
// comes when its step says, give or take a millisecond. Payload is a
// pattern in which every byte knows its place, so it is never written out.
//
//	listen 8             a listener on the flow's port with that backlog
//	hold                 SYNs that no listener takes are held
//	dial                 the stack opens the flow
//	accept               takes a connection from the listener, or accepts a held one
//	refuse reset         turns a held one down: reset, net, host, port, prohibited, silent
//	write 1000           queues bytes; short writes are errors
//	read 1000            takes so many buffered bytes and checks them
//	reader on            from now on all data is taken as it comes
//	closewrite, close, abort
//	state ESTABLISHED    the connection is in that state
//	read-all 3000        so much has been read in all
//	buffered 0           so much waits to be read
//	eof                  the end of the stream was told
//	closed reset         Closed was told: ok, reset, refused, timed out, no route, aborted
//	open                 Closed was not told
//	stat connections 1   a count of the engine's: connections, held, timewait,
//	                     cookies, or a reason for dropping, such as drop-badreset
//	stat buffers <= N    an upper bound
//	flood 100 S 0 …      the segment from so many other ports, one each
//	any 100              so many frames were sent, whichever
//	nothing              lets time pass in silence
//
// # What it never does
//
// It sees the stack as its peer and its user do, and nothing of its insides.
package script
