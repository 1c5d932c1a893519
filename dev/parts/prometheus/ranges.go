package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/prometheus/prometheus/promql"
)

type rangesQuestion struct {
	// Start is the time of the first scrape, in seconds since the Unix epoch.
	Start int64 `json:"start"`
	// Step is the time between two scrapes, in seconds.
	Step int64 `json:"step"`
	// Scrapes holds what each target answered, by its name.
	Scrapes []map[string]string `json:"scrapes"`
	Queries []string            `json:"queries"`
}

type series struct {
	Labels map[string]string `json:"labels"`
	// Points are times since the first scrape, in seconds, and values; what is no number is left out.
	Points [][2]float64 `json:"points"`
}

// ranges answers each query with its series at the time of every scrape.
func ranges(in io.Reader, out io.Writer) error {
	var asked rangesQuestion
	if err := json.NewDecoder(in).Decode(&asked); err != nil {
		return fmt.Errorf("cannot read the question: %w", err)
	}
	db, end, err := open()
	if err != nil {
		return err
	}
	defer end()
	ctx := context.Background()
	step := time.Duration(asked.Step) * time.Second
	start := time.Unix(asked.Start, 0)
	last := start
	known := labelSets{}
	for number, scrape := range asked.Scrapes {
		last = start.Add(time.Duration(number) * step)
		if known, err = store(ctx, db, scrape, known, last); err != nil {
			return fmt.Errorf("scrape %d: %w", number, err)
		}
	}
	engine := newEngine()
	answer := [][]series{}
	for _, text := range asked.Queries {
		query, err := engine.NewRangeQuery(ctx, db, nil, text, start, last, step)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		result := query.Exec(ctx)
		matrix, err := result.Matrix()
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		answer = append(answer, plain(matrix, start))
		query.Close()
	}
	return json.NewEncoder(out).Encode(answer)
}

func plain(matrix promql.Matrix, start time.Time) []series {
	all := []series{}
	for _, found := range matrix {
		points := [][2]float64{}
		for _, point := range found.Floats {
			if !math.IsNaN(point.F) && !math.IsInf(point.F, 0) {
				points = append(points, [2]float64{float64(point.T-start.UnixMilli()) / 1000, point.F})
			}
		}
		if len(points) > 0 {
			all = append(all, series{found.Metric.Map(), points})
		}
	}
	return all
}
