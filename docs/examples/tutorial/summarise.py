"""The program that runs in Sandrun: data.csv in, summary.json out."""

import csv
import json
import statistics

with open("data.csv", newline="") as file:
    values = [float(row["celsius"]) for row in csv.DictReader(file)]
summary = {"count": len(values), "mean": round(statistics.fmean(values), 2), "max": max(values)}
with open("summary.json", "w") as file:
    json.dump(summary, file)
print("summarised", len(values), "values")
