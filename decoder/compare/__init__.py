"""`jepa compare`: JEPA against pixels on one table.

plan      what is trained, with which settings          job       runs what is missing, gathers metrics.json
bench     the trained arms and their test clips         stages    what is measured: probe, physics, surprise, films
page      the report: judge decides, findings say, figures, charts, tables and grid show, labels name
"""
