// Command promcheck reads scrapes as Prometheus does, lints them as promtool does, and evaluates rules and queries on them
// with Prometheus's own engine. It reads a request as JSON from standard input and writes an answer to standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// request is what to do.
type request struct {
	// Scrapes are in order of time. Queries are evaluated at the time of the last one.
	Scrapes []scrape `json:"scrapes"`
	Queries []string `json:"queries"`
	// Rules is a rule file.
	Rules string `json:"rules"`
}

type scrape struct {
	// At is in seconds.
	At   int64  `json:"at"`
	Text string `json:"text"`
}

// answer is what came of it. Families and Series are those of the last scrape.
type answer struct {
	Problems []string          `json:"problems"`
	Families map[string]string `json:"families"`
	Series   []sample          `json:"series"`
	Results  []result          `json:"results"`
	Alerts   []alert           `json:"alerts"`
}

type sample struct {
	Labels map[string]string `json:"labels"`
	Value  model.SampleValue `json:"value"`
}

type result struct {
	Error   string   `json:"error"`
	Samples []sample `json:"samples"`
}

// alert is a rule with what fires, and what its condition compares.
type alert struct {
	Name     string `json:"name"`
	Firing   result `json:"firing"`
	Compared result `json:"compared"`
}

func main() {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fail(err)
	}
	told, err := check(asked)
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "promcheck:", err)
	os.Exit(1)
}

func check(asked request) (answer, error) {
	told := answer{Families: map[string]string{}}
	stored := series{}
	var last time.Time
	for _, scraped := range asked.Scrapes {
		last = time.Unix(scraped.At, 0)
		text := expfmt.NewTextParser(model.UTF8Validation)
		families, err := text.TextToMetricFamilies(strings.NewReader(scraped.Text))
		if err != nil {
			return told, fmt.Errorf("scrape at %d: %w", scraped.At, err)
		}
		problems, err := promlint.New(strings.NewReader(scraped.Text)).Lint()
		if err != nil {
			return told, fmt.Errorf("scrape at %d: %w", scraped.At, err)
		}
		told.Series = nil
		gone := stored.names()
		for _, problem := range problems {
			told.Problems = append(told.Problems, problem.Metric+": "+problem.Text)
		}
		for name, family := range families {
			told.Families[name] = strings.ToLower(family.GetType().String())
			samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{Timestamp: model.TimeFromUnix(scraped.At)}, family)
			if err != nil {
				return told, fmt.Errorf("%s: %w", name, err)
			}
			for _, one := range samples {
				told.Series = append(told.Series, shown(one))
				added, err := stored.add(one)
				if err != nil {
					return told, err
				}
				delete(gone, added)
			}
		}
		stored.end(gone, last)
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parser.NewParser(parser.Options{}),
	})
	evaluate := func(query string) result { return evaluated(engine, stored, query, last) }
	for _, query := range asked.Queries {
		told.Results = append(told.Results, evaluate(query))
	}
	if asked.Rules == "" {
		return told, nil
	}
	queries := parser.NewParser(parser.Options{})
	groups, problems := rulefmt.Parse([]byte(asked.Rules), false, model.UTF8Validation, queries, slog.Default())
	for _, problem := range problems {
		told.Problems = append(told.Problems, problem.Error())
	}
	if len(problems) > 0 {
		return told, nil
	}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			expression, err := queries.ParseExpr(rule.Expr)
			if err != nil {
				return told, err
			}
			compared := rule.Expr
			if comparison, ok := expression.(*parser.BinaryExpr); ok && comparison.Op.IsComparisonOperator() {
				compared = comparison.LHS.String()
			}
			told.Alerts = append(told.Alerts, alert{rule.Alert, evaluate(rule.Expr), evaluate(compared)})
		}
	}
	return told, nil
}

func shown(one *model.Sample) sample {
	named := map[string]string{}
	for name, value := range one.Metric {
		named[string(name)] = string(value)
	}
	return sample{named, one.Value}
}

func evaluated(engine *promql.Engine, stored series, query string, at time.Time) result {
	prepared, err := engine.NewInstantQuery(context.Background(), stored, nil, query, at)
	if err != nil {
		return result{Error: err.Error()}
	}
	defer prepared.Close()
	evaluated := prepared.Exec(context.Background())
	vector, err := evaluated.Vector()
	if err != nil {
		return result{Error: err.Error()}
	}
	told := result{Samples: []sample{}}
	for _, one := range vector {
		told.Samples = append(told.Samples, sample{one.Metric.Map(), model.SampleValue(one.F)})
	}
	return told
}

// series are samples by the text of their labels. It is all the storage that the engine needs.
type series map[string]*promql.Series

// names are those that had a value in the scrape before.
func (s series) names() map[string]bool {
	names := map[string]bool{}
	for name, one := range s {
		if !value.IsStaleNaN(one.Floats[len(one.Floats)-1].F) {
			names[name] = true
		}
	}
	return names
}

// end marks what a scrape doesn't have any more, as Prometheus does.
func (s series) end(gone map[string]bool, at time.Time) {
	for name := range gone {
		point := promql.FPoint{T: at.UnixMilli(), F: math.Float64frombits(value.StaleNaN)}
		s[name].Floats = append(s[name].Floats, point)
	}
}

// add stores one sample, and says of which series it is.
func (s series) add(one *model.Sample) (string, error) {
	named := map[string]string{}
	for name, value := range one.Metric {
		// As for Prometheus, an empty label is none.
		if value != "" {
			named[string(name)] = string(value)
		}
	}
	metric := labels.FromMap(named)
	of := s[metric.String()]
	if of == nil {
		of = &promql.Series{Metric: metric}
		s[metric.String()] = of
	}
	point := promql.FPoint{T: int64(one.Timestamp), F: float64(one.Value)}
	if length := len(of.Floats); length > 0 && of.Floats[length-1].T >= point.T {
		return "", fmt.Errorf("%s occurs twice in a scrape", metric)
	}
	of.Floats = append(of.Floats, point)
	return metric.String(), nil
}

func (s series) Querier(_, _ int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		set := &found{next: -1}
		for _, one := range s {
			if matches(one.Metric, matchers) {
				set.series = append(set.series, *one)
			}
		}
		return set
	}}, nil
}

func matches(metric labels.Labels, matchers []*labels.Matcher) bool {
	for _, matcher := range matchers {
		if !matcher.Matches(metric.Get(matcher.Name)) {
			return false
		}
	}
	return true
}

type found struct {
	series []promql.Series
	next   int
}

func (f *found) Next() bool {
	f.next++
	return f.next < len(f.series)
}

func (f *found) At() storage.Series                { return promql.NewStorageSeries(f.series[f.next]) }
func (f *found) Err() error                        { return nil }
func (f *found) Warnings() annotations.Annotations { return nil }
