"""Run what a visitor types, in a page of a few lines: docs/faq.md"""

import os

import requests
import streamlit as st

url = os.environ.get("SANDRUN_URL", "http://localhost:8443")

code = st.text_area("Code", "print('hello')")
if st.button("Run"):
    answer = requests.post(f"{url}/run", json={"code": code, "interpreter": "python"}, timeout=60)
    st.code(answer.json()["output"])
