package main

import (
	"fmt"
	"slices"
	"time"
)

// measured is what one connection saw within the window.
type measured struct {
	right, refused []time.Duration
	wrong, failed  int
	error          string
}

func (m *measured) note(format string, arguments ...any) {
	if m.error == "" {
		m.error = fmt.Sprintf(format, arguments...)
	}
}

// result is what is printed. Times are in seconds; quantiles are in even steps from 0 to 1, then 0.999.
type result struct {
	Seconds          float64   `json:"seconds"`
	Right            int       `json:"right"`
	Wrong            int       `json:"wrong"`
	Refused          int       `json:"refused"`
	Failed           int       `json:"failed"`
	Unsent           int64     `json:"unsent"`
	Error            string    `json:"error"`
	Quantiles        []float64 `json:"quantiles"`
	RefusedQuantiles []float64 `json:"refused_quantiles"`
	Usage            usage     `json:"usage"`
}

const quantileSteps = 200

func summarize(workers []*worker, duration time.Duration, unsent int64, used usage) result {
	var all measured
	for _, worker := range workers {
		m := &worker.measured
		all.right = append(all.right, m.right...)
		all.refused = append(all.refused, m.refused...)
		all.wrong += m.wrong
		all.failed += m.failed
		if m.error != "" {
			all.note("%s", m.error)
		}
	}
	return result{
		Seconds: duration.Seconds(), Right: len(all.right), Wrong: all.wrong, Refused: len(all.refused),
		Failed: all.failed, Unsent: unsent, Error: all.error, Usage: used,
		Quantiles: quantiles(all.right), RefusedQuantiles: quantiles(all.refused),
	}
}

func quantiles(times []time.Duration) []float64 {
	if len(times) == 0 {
		return []float64{}
	}
	slices.Sort(times)
	values := make([]float64, 0, quantileSteps+2)
	for step := 0; step <= quantileSteps; step++ {
		values = append(values, times[(len(times)-1)*step/quantileSteps].Seconds())
	}
	return append(values, times[(len(times)-1)*999/1000].Seconds())
}
