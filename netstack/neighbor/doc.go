// Package neighbor is the cache of who is who on the link: an IP address, the
// Ethernet address behind it, and how sure we are. ARP and IPv6 neighbour
// discovery each keep one; the messages themselves are the caller's.
//
// An entry goes through the states of RFC 4861 §7.3.2, folded to four:
//
//	         Lookup                answer
//	absent ────────▶ incomplete ───────────▶ reachable ◀──────┐
//	                   │ no answer              │ 30 s         │ answer
//	                   ▼                        ▼    Lookup    │
//	                 absent                   stale ───────▶ probe ──▶ absent
//	                                            ▲                  no answer
//	                 a request from it ─────────┘
//
// and static ones, which nothing changes. While an entry is incomplete, the
// first frames to it are held and go out when it resolves, so that the first
// packet of a conversation is not lost.
//
// Only an answer that was asked for can change the Ethernet address of an
// entry. A contradicting claim that nobody asked for merely makes the entry
// stale: the next use asks, and believes who answers. Hence a neighbour that
// really moved is found again within seconds, while one that pretends cannot
// take a conversation over by talking first.
//
// The number of entries and the frames held, in number and in bytes, are
// bounded; a new entry takes the place of the one least recently used.
package neighbor
