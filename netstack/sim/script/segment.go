package script

import (
	"fmt"
	"strconv"
	"strings"

	"sbxnet/netstack/header"
	"sbxnet/netstack/seq"
)

// segment is a segment in the script's words. Numbers count from the initial
// sequence numbers of the side that they belong to.
type segment struct {
	flags    header.TCPFlags
	seq, end int
	ack, win int // -1: not mentioned
	options  string
	hasOpts  bool
}

const flagLetters = "FSRP.UEW" // in the order of the bits

func parseFlags(s string) (f header.TCPFlags, err error) {
	if s == "-" {
		return 0, nil
	}
	for _, c := range s {
		i := strings.IndexRune(flagLetters, c)
		if i < 0 {
			return 0, fmt.Errorf("no flag %q in %q; there are %s", c, s, flagLetters)
		}
		f |= 1 << i
	}
	return f, nil
}

func formatFlags(f header.TCPFlags) string {
	s := ""
	for i, c := range flagLetters {
		if f&(1<<i) != 0 {
			s += string(c)
		}
	}
	if s == "" {
		return "-"
	}
	return s
}

// parseSegment reads "S. 0:0 ack 1 win 100 <…>".
func parseSegment(text string) (s segment, err error) {
	s.ack, s.win = -1, -1
	if i := strings.IndexByte(text, '<'); i >= 0 {
		if !strings.HasSuffix(text, ">") {
			return s, fmt.Errorf("options without >: %q", text)
		}
		s.options, s.hasOpts = text[i+1:len(text)-1], true
		text = text[:i]
	}
	words := strings.Fields(text)
	if len(words) < 2 {
		return s, fmt.Errorf("a segment needs flags and a sequence number: %q", text)
	}
	if s.flags, err = parseFlags(words[0]); err != nil {
		return s, err
	}
	first, last, colon := strings.Cut(words[1], ":")
	if s.seq, err = strconv.Atoi(first); err != nil {
		return s, err
	}
	s.end = s.seq
	if colon {
		if s.end, err = strconv.Atoi(last); err != nil || s.end < s.seq {
			return s, fmt.Errorf("bad range %q", words[1])
		}
	}
	words = words[2:]
	for ; len(words) >= 2; words = words[2:] {
		n, err := strconv.Atoi(words[1])
		switch {
		case err != nil:
			return s, err
		case words[0] == "ack":
			s.ack = n
		case words[0] == "win":
			s.win = n
		default:
			return s, fmt.Errorf("what is %q?", words[0])
		}
	}
	if len(words) > 0 {
		return s, fmt.Errorf("%q without a number", words[0])
	}
	return s, nil
}

func (s segment) String() string {
	t := formatFlags(s.flags) + " " + strconv.Itoa(s.seq)
	if s.end != s.seq {
		t += ":" + strconv.Itoa(s.end)
	}
	if s.ack >= 0 {
		t += " ack " + strconv.Itoa(s.ack)
	}
	if s.win >= 0 {
		t += " win " + strconv.Itoa(s.win)
	}
	if s.hasOpts {
		t += " <" + s.options + ">"
	}
	return t
}

// putOptions writes the options that text names, in its order, and returns them
// padded to a multiple of four. isn is what SACK blocks count from, ecr what TS
// echoes if it does not say.
func putOptions(text string, isn seq.Value, ecr uint32) ([]byte, error) {
	var b []byte
	for _, option := range strings.Split(text, ",") {
		w := strings.Fields(option)
		if len(w) == 0 {
			continue
		}
		n := make([]int, len(w))
		for i := range w {
			n[i], _ = strconv.Atoi(w[i])
		}
		switch {
		case w[0] == "mss" && len(w) == 2:
			b = append(b, 2, 4, byte(n[1]>>8), byte(n[1]))
		case w[0] == "wscale" && len(w) == 2:
			b = append(b, 3, 3, byte(n[1]))
		case w[0] == "sackOK":
			b = append(b, 4, 2)
		case w[0] == "nop":
			b = append(b, 1)
		case w[0] == "eol":
			b = append(b, 0)
		case w[0] == "TS" && len(w) >= 3 && w[1] == "val":
			if len(w) == 5 {
				ecr = uint32(n[4])
			}
			b = append(b, 8, 10)
			b = appendUint32(appendUint32(b, uint32(n[2])), ecr)
		case w[0] == "sack":
			b = append(b, 5, byte(2+8*(len(w)-1)))
			for _, block := range w[1:] {
				left, right, _ := strings.Cut(block, ":")
				l, errL := strconv.Atoi(left)
				r, errR := strconv.Atoi(right)
				if errL != nil || errR != nil {
					return nil, fmt.Errorf("bad SACK block %q", block)
				}
				b = appendUint32(appendUint32(b, uint32(isn)+uint32(l)), uint32(isn)+uint32(r))
			}
		case w[0] == "raw":
			for _, v := range n[1:] {
				b = append(b, byte(v))
			}
		default:
			return nil, fmt.Errorf("what is option %q?", option)
		}
	}
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	if len(b) > header.TCPMaxOptionsLen {
		return nil, fmt.Errorf("%d bytes of options", len(b))
	}
	return b, nil
}

func appendUint32(b []byte, v uint32) []byte {
	return append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// formatOptions puts a segment's options in words, in the order of the wire.
// Of a timestamp only the echo can be foreseen. isn is what SACK counts from.
func formatOptions(h header.TCP, isn seq.Value) string {
	var words []string
	o, b := h.Options(), h.OptionBytes()
	for i := 0; i < len(b) && b[i] != header.TCPOptionEnd; {
		if b[i] == header.TCPOptionNop {
			words = append(words, "nop")
			i++
			continue
		}
		switch b[i] {
		case header.TCPOptionMSS:
			words = append(words, fmt.Sprintf("mss %d", o.MSS))
		case header.TCPOptionWindowScale:
			words = append(words, fmt.Sprintf("wscale %d", o.WindowScale))
		case header.TCPOptionSACKPermitted:
			words = append(words, "sackOK")
		case header.TCPOptionTimestamp:
			words = append(words, fmt.Sprintf("TS ecr %d", o.TSEcr))
		case header.TCPOptionSACK:
			w := "sack"
			for _, s := range o.SACK[:o.NumSACK] {
				w += fmt.Sprintf(" %d:%d", s.Left.Diff(isn), s.Right.Diff(isn))
			}
			words = append(words, w)
		}
		if i+1 >= len(b) || b[i+1] < 2 {
			break
		}
		i += int(b[i+1])
	}
	return strings.Join(words, ",")
}
