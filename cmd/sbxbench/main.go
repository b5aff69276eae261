package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
)

func main() {
	app := &cli.App{
		Name:            "sbxbench",
		Usage:           "measure sbxnet, native loopback and the installed peers side by side",
		UsageText:       "sbxbench [--quick] [--json|--markdown] [--check FILE]",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quick", Usage: "the main figures only, in under a minute"},
			&cli.BoolFlag{Name: "json", Usage: "print every sample as JSON"},
			&cli.BoolFlag{Name: "markdown", Usage: "print a Markdown table"},
			&cli.BoolFlag{Name: "peers", Value: true, Usage: "measure the peers found on PATH too"},
			&cli.StringFlag{Name: "check", Usage: "fail if a ratio is more than 15 % worse than in `FILE`, a --json report"},
			&cli.StringFlag{Name: "sbxnet", Usage: "the sbxnet program to measure (default: beside sbxbench, else built, else on PATH)"},
			&cli.IntFlag{Name: "rounds", Usage: "how often to take each figure (default 3, 1 with --quick)"},
			&cli.DurationFlag{Name: "duration", Usage: "how long each load runs (default 700ms)"},
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
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q; see --help", c.Args().First())
	}
	b := &bench{
		rounds: 3, duration: 700 * time.Millisecond, quick: c.Bool("quick"),
		flows: 10_000, idle: 10 * time.Second, failed: map[string]bool{},
	}
	if b.quick {
		b.rounds = 1
	}
	if n := c.Int("rounds"); n > 0 {
		b.rounds = n
	}
	if d := c.Duration("duration"); d > 0 {
		b.duration = d
	}
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		b.progress = os.Stderr
	}
	var err error
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
	b.say("")
	return print(c, b)
}

func print(c *cli.Context, b *bench) error {
	r := &report{Machine: thisMachine(), Rows: b.rows, Problems: b.problems}
	for _, n := range b.networks {
		r.Networks = append(r.Networks, n.name)
	}
	var err error
	switch {
	case c.Bool("json"):
		err = r.json(os.Stdout)
	case c.Bool("markdown"):
		r.markdown(os.Stdout)
	default:
		r.text(os.Stdout)
	}
	if err != nil || c.String("check") == "" {
		return err
	}
	worse, err := r.check(c.String("check"))
	if err != nil {
		return err
	}
	for _, line := range worse {
		fmt.Fprintln(os.Stderr, "regression:", line)
	}
	if len(worse) > 0 {
		return fmt.Errorf("%d ratios are more than %.0f %% worse than in %s", len(worse), allowed*100, c.String("check"))
	}
	return nil
}
