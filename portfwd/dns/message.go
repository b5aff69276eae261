package dns

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// The fixed part of a message (RFC 1035 §4.1.1).
const (
	headerLen  = 12
	maxMessage = 65535
	maxName    = 255
	maxLabel   = 63
	// Bytes of type and class after the name in a question.
	typeAndClass = 4

	flagResponse  = 1 << 15
	flagAvailable = 1 << 7 // RA
	maskOpcode    = 0xf << 11
	flagRecursion = 1 << 8 // RD
	maskRcode     = 0xf
)

// Response codes (RFC 1035 §4.1.1).
const (
	rcodeSuccess  = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
)

// message is a DNS message of at least headerLen bytes. Fields are big-endian.
type message []byte

func (m message) id() uint16        { return binary.BigEndian.Uint16(m) }
func (m message) setID(id uint16)   { binary.BigEndian.PutUint16(m, id) }
func (m message) flags() uint16     { return binary.BigEndian.Uint16(m[2:]) }
func (m message) isResponse() bool  { return m.flags()&flagResponse != 0 }
func (m message) rcode() int        { return int(m.flags() & maskRcode) }
func (m message) questions() uint16 { return binary.BigEndian.Uint16(m[4:]) }

// withID is a copy of the message under another ID.
func (m message) withID(id uint16) message {
	c := message(bytes.Clone(m))
	c.setID(id)
	return c
}

// question returns the bytes of the message's only question: name, type, class.
// It fails unless there is exactly one (RFC 9619), with an uncompressed name:
// there is nothing before it that a pointer could point to.
func (m message) question() (question, bool) {
	if m.questions() != 1 {
		return nil, false
	}
	at := headerLen
	for at < len(m) && m[at] != 0 {
		if m[at] > maxLabel {
			return nil, false
		}
		at += 1 + int(m[at])
	}
	end := at + 1 + typeAndClass
	if end > len(m) || at+1-headerLen > maxName {
		return nil, false
	}
	return question(m[headerLen:end]), true
}

// question is the wire form of one question.
type question []byte

func (q question) name() []byte { return q[:len(q)-typeAndClass] }

// equal compares names without regard to case, as some servers answer in lower
// case (RFC 4343). Length bytes are below 'A', so they are not affected.
func (q question) equal(r question) bool {
	return len(q) == len(r) && bytes.Equal(q[len(q)-typeAndClass:], r[len(r)-typeAndClass:]) && equalFold(q.name(), r.name())
}

// equalFold is equality but for the case of ASCII letters.
func equalFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// wireName is a name as it stands in a question.
func wireName(dotted string) []byte {
	var b []byte
	for label := range strings.SplitSeq(strings.TrimSuffix(dotted, "."), ".") {
		b = append(b, byte(len(label)))
		b = append(b, label...)
	}
	return append(b, 0)
}

// refusal is the answer without records that says why there is none. The
// question is repeated if it can be read.
func (m message) refusal(rcode uint16) message {
	r := make(message, headerLen, headerLen+maxName+typeAndClass)
	r.setID(m.id())
	flags := flagResponse | flagAvailable | m.flags()&(maskOpcode|flagRecursion) | rcode
	binary.BigEndian.PutUint16(r[2:], flags)
	if q, ok := m.question(); ok {
		binary.BigEndian.PutUint16(r[4:], 1)
		r = append(r, q...)
	}
	return r
}

// answers reports whether r is a response to query: same ID, same question.
// Servers may leave the question out of an answer that only says that they did
// not understand it or will not answer it.
func (m message) answers(query message) bool {
	if len(m) < headerLen || !m.isResponse() || m.id() != query.id() {
		return false
	}
	if m.questions() == 0 {
		rcode := m.rcode()
		return rcode != rcodeSuccess && rcode != rcodeNXDomain
	}
	asked, ok := query.question()
	got, ok2 := m.question()
	return ok && ok2 && got.equal(asked)
}

// settles reports whether a response ends the search. Like the stub resolver we
// ask the next server when one says that it cannot answer.
func (m message) settles() bool {
	switch m.rcode() {
	case rcodeServFail, rcodeNotImp, rcodeRefused:
		return false
	}
	return true
}
