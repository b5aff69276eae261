package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// What a run takes unless flags say otherwise. With what --rounds and
// --duration ask for it takes the time that it takes.
const (
	rounds, quickRounds     = 5, 3
	duration, quickDuration = 500 * time.Millisecond, 200 * time.Millisecond
	limit, quickLimit       = 9*time.Minute + 30*time.Second, 55 * time.Second
)

func main() {
	app := &cli.App{
		Name:            "sbxbench",
		Usage:           "measure sbxnet, native loopback and the installed peers side by side",
		UsageText:       "sbxbench [--quick] [--json|--markdown] [--check [--against FILE]]",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quick", Usage: "the main figures only, in under a minute"},
			&cli.BoolFlag{Name: "json", Usage: "print every sample as JSON"},
			&cli.BoolFlag{Name: "markdown", Usage: "print Markdown tables"},
			&cli.BoolFlag{Name: "peers", Value: true, Usage: "measure the peers found on PATH too"},
			&cli.BoolFlag{Name: "check", Usage: "fail if a figure is more than 15 % worse than in the checked-in table"},
			&cli.StringFlag{Name: "against", Usage: "with --check: compare with `FILE`, a --json report, instead"},
			&cli.StringFlag{Name: "sbxnet", Usage: "the sbxnet `PROGRAM` to measure (default: beside sbxbench, else built, else on PATH)"},
			&cli.IntFlag{Name: "rounds", Usage: fmt.Sprintf("how often to take each figure (default: %d, %d with --quick)", rounds, quickRounds)},
			&cli.DurationFlag{Name: "duration", Usage: fmt.Sprintf("how long each load runs (default: %v, %v with --quick)", duration, quickDuration)},
		},
		Action: action,
		Commands: []*cli.Command{{
			Name: "worker", Hidden: true,
			Action: func(c *cli.Context) error {
				port, err := strconv.Atoi(c.Args().First())
				if err != nil {
					return fmt.Errorf("worker: port %q: %w", c.Args().First(), err)
				}
				return work(port)
			},
		}},
	}
	if err := app.Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "sbxbench:", err)
		os.Exit(1)
	}
}

func action(c *cli.Context) error {
	b, err := newBench(c)
	if err != nil {
		return err
	}
	var earlier *report
	if c.Bool("check") { // before the minutes that the run takes
		if earlier, err = earlierReport(c.String("against")); err != nil {
			return err
		}
	}
	if err := adoptOrphans(); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.scratch, err = os.MkdirTemp("", "sbxbench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.scratch)
	if b.sbxnet = c.String("sbxnet"); b.sbxnet == "" {
		if b.sbxnet, err = findSbxnet(b.self, b.scratch); err != nil {
			return err
		}
	}
	if b.server, err = serve("127.0.0.1", 0); err != nil {
		return err
	}
	defer b.server.close()
	b.networks = networks(b.quick, c.Bool("peers"))
	b.run()
	b.progress.done()
	r := b.report()
	if err := print(c, r); err != nil || earlier == nil {
		return err
	}
	return judge(os.Stderr, r.check(earlier))
}

// newBench is the bench that the flags ask for, before it has looked at the
// machine for what to measure.
func newBench(c *cli.Context) (*bench, error) {
	if c.Args().Present() {
		return nil, fmt.Errorf("unexpected argument %q; see --help", c.Args().First())
	}
	if c.Bool("json") && c.Bool("markdown") {
		return nil, fmt.Errorf("--json and --markdown: leave one of them out")
	}
	if c.IsSet("against") && !c.Bool("check") {
		return nil, fmt.Errorf("--against %s: has no effect without --check", c.String("against"))
	}
	b := &bench{rounds: rounds, duration: duration, limit: limit, quick: c.Bool("quick"), flows: idleFlows(), idle: 10 * time.Second, failed: map[string]bool{}}
	if b.quick {
		b.rounds, b.duration, b.limit = quickRounds, quickDuration, quickLimit
	}
	if c.IsSet("rounds") {
		if b.rounds, b.limit = c.Int("rounds"), 0; b.rounds < 1 {
			return nil, fmt.Errorf("--rounds %d: at least one", b.rounds)
		}
	}
	if c.IsSet("duration") {
		if b.duration, b.limit = c.Duration("duration"), 0; b.duration < time.Millisecond || b.duration > time.Minute {
			return nil, fmt.Errorf("--duration %v: not from 1ms to 1m", b.duration)
		}
	}
	b.progress.w = os.Stderr
	if info, err := os.Stderr.Stat(); err == nil {
		b.progress.terminal = info.Mode()&os.ModeCharDevice != 0
	}
	return b, nil
}

// idleFlows is as many as are wanted, or what the limit of open files leaves:
// the bench has an end of each, and so has what carries them.
func idleFlows() int {
	const spare = 500
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil && l.Max < wantedFlows+spare {
		return max(int(l.Max)-spare, 100)
	}
	return wantedFlows
}

func print(c *cli.Context, r *report) error {
	switch {
	case c.Bool("json"):
		return r.json(os.Stdout)
	case c.Bool("markdown"):
		r.markdown(os.Stdout)
	default:
		r.text(os.Stdout)
	}
	return nil
}

// judge prints what --check has found, and makes an error of what is worse.
func judge(w io.Writer, v verdict) error {
	if v.Note != "" {
		fmt.Fprintln(w, "sbxbench:", v.Note)
	}
	for _, line := range v.Worse {
		fmt.Fprintln(w, "regression:", line)
	}
	switch {
	case v.Compared == 0:
		return fmt.Errorf("--check: the earlier table has none of this run's figures")
	case len(v.Worse) > 0:
		return fmt.Errorf("--check: %d of %d figures are more than %.0f %% worse", len(v.Worse), v.Compared, allowed*100)
	}
	fmt.Fprintf(w, "sbxbench: none of %d figures is more than %.0f %% worse\n", v.Compared, allowed*100)
	return nil
}
