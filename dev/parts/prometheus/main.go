// Command prometheus tells which alerts fire after a series of scrapes, or with
// `ranges` what queries answer about them. Storage,
// scrape format, query engine and rule groups are Prometheus' own; what it leaves
// out is waiting: each scrape counts as taken one step after the one before.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/tsdb"
)

const openMetrics = "application/openmetrics-text; version=1.0.0"

type question struct {
	// Rules is the path of a rules file.
	Rules string `json:"rules"`
	// Step is the time between two scrapes, in seconds.
	Step int64 `json:"step"`
	// Scrapes holds what each target answered, by its name; one that did not answer is not there.
	Scrapes []map[string]string `json:"scrapes"`
}

type alert struct {
	Name        string            `json:"name"`
	State       string            `json:"state"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func main() {
	answer := run
	if len(os.Args) == 3 && os.Args[1] == "decode" {
		answer = func(in io.Reader, out io.Writer) error { return decode(os.Args[2], in, out) }
	}
	if len(os.Args) == 2 && os.Args[1] == "ranges" {
		answer = ranges
	}
	if err := answer(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "prometheus:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var asked question
	if err := json.NewDecoder(in).Decode(&asked); err != nil {
		return fmt.Errorf("cannot read the question: %w", err)
	}
	db, end, err := open()
	if err != nil {
		return err
	}
	defer end()

	groups, err := load(db, asked)
	if err != nil {
		return err
	}
	ctx := context.Background()
	now := time.Unix(1_700_000_000, 0)
	seen := labelSets{}
	for number, scrape := range asked.Scrapes {
		now = now.Add(time.Duration(asked.Step) * time.Second)
		if seen, err = store(ctx, db, scrape, seen, now); err != nil {
			return fmt.Errorf("scrape %d: %w", number, err)
		}
		for _, group := range groups {
			group.Eval(ctx, now)
		}
	}
	answer := []alert{}
	for _, group := range groups {
		for _, rule := range group.AlertingRules() {
			if err := rule.LastError(); err != nil {
				return fmt.Errorf("%s: %w", rule.Name(), err)
			}
			for _, active := range rule.ActiveAlerts() {
				answer = append(answer, alert{
					rule.Name(), active.State.String(), active.Labels.Map(), active.Annotations.Map(),
				})
			}
		}
	}
	return json.NewEncoder(out).Encode(answer)
}

type labelSets = map[string]labels.Labels

// open makes an empty database, and the function that removes it.
func open() (*tsdb.DB, func(), error) {
	dir, err := os.MkdirTemp("", "prometheus-")
	if err != nil {
		return nil, nil, err
	}
	db, err := tsdb.Open(dir, promslog.NewNopLogger(), nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	return db, func() { db.Close(); os.RemoveAll(dir) }, nil
}

func newEngine() *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute,
	})
}

func load(db *tsdb.DB, asked question) (map[string]*rules.Group, error) {
	engine := newEngine()
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:    rules.EngineQueryFunc(engine, db),
		NotifyFunc:   func(context.Context, string, ...*rules.Alert) {},
		Context:      context.Background(),
		AppendableV2: db,
		Queryable:    db,
		Logger:       slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Registerer:   prometheus.NewRegistry(),
		ExternalURL:  &url.URL{},
		Parser:       parser.NewParser(parser.Options{}),
	})
	step := time.Duration(asked.Step) * time.Second
	groups, errs := manager.LoadGroups(step, labels.EmptyLabels(), "", nil, false, asked.Rules)
	return groups, errors.Join(errs...)
}

// store appends one scrape of every target. Series that were there before and are
// not now end with a staleness marker, as after a real scrape.
func store(
	ctx context.Context, db *tsdb.DB, scrape map[string]string, before labelSets, now time.Time,
) (labelSets, error) {
	appender := db.Appender(ctx)
	seen := labelSets{}
	for target, text := range scrape {
		p, err := textparse.New([]byte(text), openMetrics, nil, textparse.ParserOptions{})
		if err != nil {
			return nil, err
		}
		for {
			entry, err := p.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", target, err)
			}
			if entry != textparse.EntrySeries {
				continue
			}
			_, _, v := p.Series()
			var series labels.Labels
			p.Labels(&series)
			series = labels.NewBuilder(series).Set("job", "twinspan").Set("instance", target).Labels()
			if _, err := appender.Append(0, series, now.UnixMilli(), v); err != nil {
				return nil, err
			}
			seen[series.String()] = series
		}
	}
	for name, series := range before {
		if _, there := seen[name]; !there {
			stale := math.Float64frombits(value.StaleNaN)
			if _, err := appender.Append(0, series, now.UnixMilli(), stale); err != nil {
				return nil, err
			}
		}
	}
	return seen, appender.Commit()
}
