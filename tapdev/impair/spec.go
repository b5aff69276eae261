package impair

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bounds and defaults of a Spec.
const (
	// DefaultLimit is how many packets wait in a lane at most, as with netem.
	DefaultLimit = 1000

	maxLimit = 1 << 20
	maxDelay = time.Minute
	maxBurst = 1000
	minRate  = 1e3  // bit/s
	maxRate  = 1e12 // bit/s
	maxSpec  = 1000 // bytes of text
)

// Percent is a share of packets, 0 to 100.
type Percent float64

// Spec says what happens to packets, alike in both directions. The zero value
// is a perfect link.
type Spec struct {
	// Delay is the time a packet takes, Jitter how much longer or shorter it
	// may be. Jitter is at most Delay.
	Delay, Jitter time.Duration
	// Loss is the share of packets that vanish. Burst is how many do so in a
	// row, on average (Gilbert's model); 0 leaves each to its own luck. A burst
	// is counted in packets, however long they take to come: it may swallow
	// several retransmissions that time-outs are between.
	Loss  Percent
	Burst float64
	// Reorder is the share of packets that later ones overtake, Duplicate of
	// those that arrive twice, Corrupt of those that arrive with a bit flipped.
	Reorder, Duplicate, Corrupt Percent
	// Rate is how fast packets leave, in bit/s of frames with their Ethernet
	// header; 0 means at once.
	Rate int64
	// Limit is how many packets wait in a lane; 0 means DefaultLimit.
	Limit int
	// Seed chooses among the possible fates.
	Seed uint64
}

// IsZero reports whether s leaves every packet alone.
func (s Spec) IsZero() bool {
	s.Limit, s.Seed, s.Burst = 0, 0, 0
	return s == Spec{}
}

// keys are the parts of a spec in the order in which String writes them.
var keys = []struct {
	name  string
	parse func(s *Spec, value string) error
	text  func(s *Spec) string // "" leaves it out
}{
	{"delay", func(s *Spec, v string) error { return parseDelay(v, &s.Delay) }, func(s *Spec) string { return durationText(s.Delay) }},
	{"jitter", func(s *Spec, v string) error { return parseDelay(v, &s.Jitter) }, func(s *Spec) string { return durationText(s.Jitter) }},
	{"loss", func(s *Spec, v string) error { return parsePercent(v, &s.Loss) }, func(s *Spec) string { return s.Loss.text() }},
	{"burst", parseBurst, func(s *Spec) string { return unlessZero(number(s.Burst)) }},
	{"reorder", func(s *Spec, v string) error { return parsePercent(v, &s.Reorder) }, func(s *Spec) string { return s.Reorder.text() }},
	{"dup", func(s *Spec, v string) error { return parsePercent(v, &s.Duplicate) }, func(s *Spec) string { return s.Duplicate.text() }},
	{"corrupt", func(s *Spec, v string) error { return parsePercent(v, &s.Corrupt) }, func(s *Spec) string { return s.Corrupt.text() }},
	{"rate", func(s *Spec, v string) error { return parseRate(v, &s.Rate) }, func(s *Spec) string { return rateText(s.Rate) }},
	{"limit", parseLimit, func(s *Spec) string { return unlessZero(strconv.Itoa(s.Limit)) }},
	{"seed", parseSeed, func(s *Spec) string { return unlessZero(strconv.FormatUint(s.Seed, 10)) }},
}

// Parse reads what --impair takes, such as "delay=50ms,jitter=5ms,loss=1%". An
// error is one line that names the part it is about.
func Parse(text string) (Spec, error) {
	var s Spec
	if len(text) > maxSpec {
		return Spec{}, fmt.Errorf("impairment of %d bytes: too long", len(text))
	}
	if text == "none" {
		return s, nil
	}
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		if seen[name] {
			return Spec{}, fmt.Errorf("%s: %s is there twice", quoted(part), name)
		}
		seen[name] = true
		if err := s.set(name, value); err != nil {
			return Spec{}, fmt.Errorf("%s: %w", quoted(part), err)
		}
	}
	return s, s.check()
}

// quoted is a part of the user's text, fit for a line of an error.
func quoted(part string) string {
	if part == "" {
		return `""`
	}
	if q := strconv.Quote(part); len(q) != len(part)+2 || strings.ContainsAny(part, " \t") {
		return q
	}
	return part
}

func (s *Spec) set(name, value string) error {
	var known []string
	for _, k := range keys {
		if k.name == name {
			return k.parse(s, value)
		}
		known = append(known, k.name)
	}
	return fmt.Errorf("not an impairment; there are %s, written like delay=50ms,loss=1%%", strings.Join(known, ", "))
}

// check refuses parts that don't go together.
func (s *Spec) check() error {
	switch {
	case s.Jitter > s.Delay:
		return fmt.Errorf("jitter=%v: more than the delay of %v; make that longer", s.Jitter, s.Delay)
	case s.Burst > 0 && s.Loss == 0:
		return fmt.Errorf("burst=%s: has no effect without loss; add one like loss=1%%", number(s.Burst))
	case s.Burst > 0 && s.Loss == 100:
		return fmt.Errorf("burst=%s: has no effect when all is lost; leave it out", number(s.Burst))
	}
	// Between two bursts there is one packet at least.
	if least := float64(s.Loss / (100 - s.Loss)); s.Burst > 0 && s.Burst < least {
		return fmt.Errorf("burst=%s: too short for a loss of %s%%; make it %s or more", number(s.Burst), number(float64(s.Loss)), number(math.Ceil(least)))
	}
	return nil
}

// String is the spec as Parse takes it.
func (s Spec) String() string {
	var parts []string
	for _, k := range keys {
		if v := k.text(&s); v != "" {
			parts = append(parts, k.name+"="+v)
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ",")
}

func parseDelay(value string, d *time.Duration) error {
	v, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return fmt.Errorf("not a time; write one with its unit, like 50ms")
	case v < 0:
		return fmt.Errorf("a time can't be negative")
	case v > maxDelay:
		return fmt.Errorf("more than %v", maxDelay)
	}
	*d = v
	return nil
}

func durationText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func parsePercent(value string, p *Percent) error {
	digits, ok := strings.CutSuffix(value, "%")
	v, err := parseNumber(digits)
	switch {
	case err != nil || !ok:
		return fmt.Errorf("not a percentage; write one like 0.5%%")
	case v < 0:
		return fmt.Errorf("a percentage can't be negative")
	case v > 100:
		return fmt.Errorf("more than 100%%")
	}
	*p = Percent(v)
	return nil
}

func (p Percent) text() string {
	if p == 0 {
		return ""
	}
	return number(float64(p)) + "%"
}

// parseNumber takes plain decimal numbers only: no hexadecimal, no infinity.
func parseNumber(text string) (float64, error) {
	if strings.Trim(text, "+-.0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, err
	}
	return v + 0, nil
}

// number writes a number as parseNumber takes it.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func unlessZero(text string) string {
	if text == "0" {
		return ""
	}
	return text
}

func parseBurst(s *Spec, value string) error {
	v, err := parseNumber(value)
	if err != nil || v < 1 || v > maxBurst {
		return fmt.Errorf("not a number of packets from 1 to %d", maxBurst)
	}
	s.Burst = v
	return nil
}

// rateUnits are those of bit/s, the largest first.
var rateUnits = []struct {
	name  string
	scale float64
}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

func parseRate(value string, rate *int64) error {
	for _, u := range rateUnits {
		digits, ok := strings.CutSuffix(value, u.name)
		if !ok {
			continue
		}
		v, err := parseNumber(digits)
		if err != nil {
			break
		}
		v = math.Round(v * u.scale)
		switch {
		case v < 0:
			return fmt.Errorf("a rate can't be negative")
		case v < minRate:
			return fmt.Errorf("less than 1kbit, the least there is")
		case v > maxRate:
			return fmt.Errorf("more than 1000gbit; leave it out for no limit")
		}
		*rate = int64(v)
		return nil
	}
	return fmt.Errorf("not a rate; write one like 20mbit (bit, kbit, mbit or gbit a second)")
}

func rateText(rate int64) string {
	if rate == 0 {
		return ""
	}
	for _, u := range rateUnits {
		if rate%int64(u.scale) == 0 {
			return strconv.FormatInt(rate/int64(u.scale), 10) + u.name
		}
	}
	return ""
}

func parseLimit(s *Spec, value string) error {
	v, err := strconv.Atoi(value)
	if err != nil || v < 1 || v > maxLimit {
		return fmt.Errorf("not a number of packets from 1 to %d", maxLimit)
	}
	s.Limit = v
	return nil
}

func parseSeed(s *Spec, value string) error {
	v, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return fmt.Errorf("not a whole number that is 0 or more")
	}
	s.Seed = v
	return nil
}
