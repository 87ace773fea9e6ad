"""Kept tokens and questions -> answers, for many arms with one loaded model."""

from prunesid.answering.questions import Answer, Question, Stopping, read_answers, write_answers

__all__ = ["Answer", "Question", "Stopping", "read_answers", "write_answers"]
